import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpServer;
import java.io.IOException;
import java.io.InputStream;
import java.net.HttpURLConnection;
import java.net.InetSocketAddress;
import java.net.URI;
import java.net.URL;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse.BodyHandlers;
import java.security.MessageDigest;
import java.util.ArrayList;
import java.util.HexFormat;
import java.util.List;
import java.util.Map;
import java.util.concurrent.Callable;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.stream.IntStream;

/** com.sun.net.httpserver on a thread pool (VIRTUAL=1: a virtual thread for each request); HttpURLConnection and HttpClient. */
public final class Mesh {
    private static final String KEY = System.getenv("MARKER_KEY");
    private static final String[] BASES = {System.getenv("A") + "/leaf/", System.getenv("B") + "/branch/"};
    private static final ExecutorService POOL = Executors.newFixedThreadPool(32);
    private static final HttpClient CLIENT = HttpClient.newBuilder().version(HttpClient.Version.HTTP_1_1).build();

    private interface Style {
        void run(String marker) throws Exception;
    }

    private interface Attempt {
        void make() throws Exception;
    }

    private interface Call {
        void make(String marker, int call) throws Exception;
    }

    private static final Map<String, Style> STYLES = Map.ofEntries(
            Map.entry("leaf", m -> sleep(m, 0)),
            Map.entry("branch", m -> get(BASES[0] + child(m, 0))),
            Map.entry("seq", m -> inOrder(m, 3, Mesh::call)),
            Map.entry("par", m -> atOnce(m, 3)),
            Map.entry("sleep", m -> {
                for (int i = 0; i < 2; i++) {
                    sleep(m, i + 1);
                    call(m, i);
                }
            }),
            Map.entry("cpu", m -> {
                for (int i = 0; i < 2; i++) {
                    work(m);
                    call(m, i);
                }
            }),
            // HttpClient: the caller waits in send, in join, or not before all are under way.
            Map.entry("send", m -> inOrder(m, 3, Mesh::send)),
            Map.entry("asyncjoin", m -> inOrder(m, 3, (marker, i) -> sendAsync(marker, i).join())),
            Map.entry("async", m -> {
                CompletableFuture<?>[] all = new CompletableFuture<?>[3];
                for (int i = 0; i < all.length; i++) {
                    all[i] = sendAsync(m, i);
                }
                CompletableFuture.allOf(all).join();
            }),
            Map.entry("compose", m -> sendAsync(m, 0)
                    .thenCompose(response -> sendAsync(m, 1))
                    .thenCompose(response -> sendAsync(m, 2))
                    .join()),
            // Others call: a pool of our own, the common pool.
            Map.entry("supply", m -> inOrder(m, 2, (marker, i) -> CompletableFuture.runAsync(() -> unchecked(marker, i), POOL).join())),
            Map.entry("supplysend", m -> inOrder(m, 2, (marker, i) -> CompletableFuture.runAsync(() -> uncheckedSend(marker, i), POOL).join())),
            // Several at once, awaited one after the other or together.
            Map.entry("submit", m -> {
                List<Future<?>> all = new ArrayList<>();
                for (int i = 0; i < 3; i++) {
                    int call = i;
                    all.add(POOL.submit(() -> unchecked(m, call)));
                }
                for (Future<?> one : all) {
                    one.get();
                }
            }),
            Map.entry("invokeall", m -> {
                List<Callable<Void>> all = new ArrayList<>();
                for (int i = 0; i < 3; i++) {
                    int call = i;
                    all.add(() -> {
                        call(m, call);
                        return null;
                    });
                }
                for (Future<Void> one : POOL.invokeAll(all)) {
                    one.get();
                }
            }),
            Map.entry("joins", m -> IntStream.range(0, 3)
                    .mapToObj(i -> CompletableFuture.runAsync(() -> unchecked(m, i), POOL))
                    .toList()
                    .forEach(CompletableFuture::join)),
            Map.entry("combine", m -> supply(m, 0).thenCombine(supply(m, 1), (a, b) -> a + b).join()),
            Map.entry("common", m -> inOrder(m, 2, (marker, i) -> CompletableFuture.runAsync(() -> unchecked(marker, i)).join())));

    public static void main(String[] arguments) throws Exception {
        HttpServer server = HttpServer.create(new InetSocketAddress("0.0.0.0", Integer.parseInt(System.getenv("PORT"))), 512);
        server.setExecutor(executor());
        server.createContext("/", Mesh::handle);
        server.start();
    }

    private static ExecutorService executor() throws ReflectiveOperationException {
        if (System.getenv("VIRTUAL") == null) {
            return Executors.newFixedThreadPool(64);
        }
        // By reflection: compiles with a JDK that has none.
        return (ExecutorService) Executors.class.getMethod("newVirtualThreadPerTaskExecutor").invoke(null);
    }

    private static void handle(HttpExchange exchange) throws IOException {
        String error = run(exchange.getRequestURI().getPath());
        byte[] body = (error == null ? "ok\n" : error).getBytes();
        exchange.sendResponseHeaders(error == null ? 200 : 502, body.length);
        exchange.getResponseBody().write(body);
        exchange.close();
    }

    /** Does what a request asks for; returns what went wrong. */
    static String run(String path) {
        String[] parts = path.split("/");
        return attempt(() -> STYLES.get(parts[1]).run(parts[2]));
    }

    /** Calls that name what the request names: {@code /named/<order>/<m>}. */
    static String runNamed(String path) {
        String[] parts = path.split("/");
        return attempt(() -> {
            for (int i = 0; i < 3; i++) {
                get(BASES[i % 2] + child(parts[3], i) + "?order=" + parts[2]);
            }
        });
    }

    /** Makes these calls one after the other; returns what went wrong. */
    static String calls(String marker, int from, int to) {
        return attempt(() -> {
            for (int i = from; i < to; i++) {
                call(marker, i);
            }
        });
    }

    private static String attempt(Attempt attempt) {
        try {
            attempt.make();
            return null;
        } catch (Exception e) {
            return e.toString();
        }
    }

    /** A few milliseconds: long enough for the next request to come in. */
    static void nap(String marker) {
        try {
            Thread.sleep(3 + Character.digit(marker.charAt(0), 16) / 2);
        } catch (InterruptedException e) {
            throw new IllegalStateException(e);
        }
    }

    private static String child(String marker, int call) {
        return HexFormat.of().formatHex(sha256((KEY + "/" + marker + "/" + call).getBytes()), 0, 8);
    }

    private static byte[] sha256(byte[] text) {
        try {
            return MessageDigest.getInstance("SHA-256").digest(text);
        } catch (java.security.NoSuchAlgorithmException e) {
            throw new IllegalStateException(e);
        }
    }

    private static void sleep(String marker, int digit) throws InterruptedException {
        Thread.sleep(Character.digit(marker.charAt(digit), 16) / 2);
    }

    private static void work(String marker) {
        byte[] sum = marker.getBytes();
        for (int i = 0; i < 500; i++) {
            sum = sha256(sum);
        }
    }

    private static void get(String url) throws IOException {
        HttpURLConnection connection = (HttpURLConnection) new URL(url).openConnection();
        try (InputStream in = connection.getInputStream()) {
            in.readAllBytes();
        }
    }

    private static void call(String marker, int i) throws IOException {
        get(BASES[i % 2] + child(marker, i));
    }

    private static HttpRequest request(String marker, int i) {
        return HttpRequest.newBuilder(URI.create(BASES[i % 2] + child(marker, i))).build();
    }

    private static void send(String marker, int i) throws IOException, InterruptedException {
        CLIENT.send(request(marker, i), BodyHandlers.ofString());
    }

    static CompletableFuture<?> sendAsync(String marker, int i) {
        return CLIENT.sendAsync(request(marker, i), BodyHandlers.ofString());
    }

    private static void inOrder(String marker, int count, Call call) throws Exception {
        for (int i = 0; i < count; i++) {
            call.make(marker, i);
        }
    }

    private static void unchecked(String marker, int i) {
        try {
            call(marker, i);
        } catch (IOException e) {
            throw new IllegalStateException(e);
        }
    }

    private static CompletableFuture<Integer> supply(String marker, int i) {
        return CompletableFuture.supplyAsync(() -> {
            unchecked(marker, i);
            return i;
        }, POOL);
    }

    private static void uncheckedSend(String marker, int i) {
        try {
            send(marker, i);
        } catch (IOException | InterruptedException e) {
            throw new IllegalStateException(e);
        }
    }

    private static void atOnce(String marker, int count) {
        CompletableFuture<?>[] all = new CompletableFuture<?>[count];
        for (int i = 0; i < count; i++) {
            int call = i;
            all[i] = CompletableFuture.runAsync(() -> unchecked(marker, call), POOL);
        }
        CompletableFuture.allOf(all).join();
    }
}
