import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpServer;
import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.net.HttpURLConnection;
import java.net.InetSocketAddress;
import java.net.URI;
import java.net.URL;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.util.concurrent.Executors;

/** com.sun.net.httpserver on a thread pool; the next service through HttpURLConnection (/call) or HttpClient (/client). */
public final class Server {
    private static final String NEXT = System.getenv().getOrDefault("NEXT", "");
    private static final HttpClient CLIENT = HttpClient.newBuilder().version(HttpClient.Version.HTTP_1_1).build();

    public static void main(String[] arguments) throws IOException {
        String host = System.getenv().getOrDefault("HOST", "0.0.0.0");
        int port = Integer.parseInt(System.getenv("PORT"));
        HttpServer server = HttpServer.create(new InetSocketAddress(host, port), 128);
        server.setExecutor(Executors.newFixedThreadPool(16));
        server.createContext("/hello/", exchange -> answer(exchange, 200, ("hello " + last(exchange) + "\n").getBytes()));
        server.createContext("/status/", exchange -> answer(exchange, Integer.parseInt(last(exchange)), new byte[0]));
        server.createContext("/slow/", Server::slow);
        server.createContext("/echo", Server::echo);
        server.createContext("/call/", Server::call);
        server.createContext("/client/", Server::client);
        server.start();
    }

    private static String last(HttpExchange exchange) {
        String path = exchange.getRequestURI().getPath();
        return path.substring(path.lastIndexOf('/') + 1);
    }

    private static void answer(HttpExchange exchange, int status, byte[] body) throws IOException {
        exchange.sendResponseHeaders(status, body.length == 0 ? -1 : body.length);
        try (OutputStream out = exchange.getResponseBody()) {
            out.write(body);
        }
        exchange.close();
    }

    private static void slow(HttpExchange exchange) throws IOException {
        try {
            Thread.sleep(Long.parseLong(last(exchange)));
        } catch (InterruptedException e) {
            Thread.currentThread().interrupt();
        }
        answer(exchange, 200, "slow\n".getBytes());
    }

    private static void echo(HttpExchange exchange) throws IOException {
        long bytes;
        try (InputStream in = exchange.getRequestBody()) {
            bytes = in.transferTo(OutputStream.nullOutputStream());
        }
        answer(exchange, 200, (bytes + "\n").getBytes());
    }

    private static void call(HttpExchange exchange) throws IOException {
        HttpURLConnection next = (HttpURLConnection) new URL(NEXT + "/hello/" + last(exchange)).openConnection();
        int status = next.getResponseCode();
        try (InputStream in = next.getInputStream()) {
            answer(exchange, status, in.readAllBytes());
        }
    }

    private static void client(HttpExchange exchange) throws IOException {
        HttpRequest request = HttpRequest.newBuilder(URI.create(NEXT + "/hello/" + last(exchange))).build();
        try {
            HttpResponse<byte[]> next = CLIENT.send(request, HttpResponse.BodyHandlers.ofByteArray());
            answer(exchange, next.statusCode(), next.body());
        } catch (InterruptedException e) {
            Thread.currentThread().interrupt();
        }
    }
}
