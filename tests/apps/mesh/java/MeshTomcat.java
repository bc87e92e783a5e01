import jakarta.servlet.AsyncContext;
import jakarta.servlet.http.HttpServlet;
import jakarta.servlet.http.HttpServletRequest;
import jakarta.servlet.http.HttpServletResponse;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.file.Files;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import org.apache.catalina.Lifecycle;
import org.apache.catalina.Wrapper;
import org.apache.catalina.connector.Connector;
import org.apache.catalina.core.StandardContext;
import org.apache.catalina.startup.Tomcat;

/** Tomcat: a poller reads the first bytes' arrival, a thread of a pool serves; below {@code /later} another thread answers. */
public final class MeshTomcat {
    private static final ExecutorService LATER = Executors.newFixedThreadPool(64);

    public static void main(String[] arguments) throws Exception {
        Connector connector = new Connector("org.apache.coyote.http11.Http11NioProtocol");
        connector.setPort(Integer.parseInt(System.getenv("PORT")));
        connector.setProperty("maxThreads", "64");
        connector.setProperty("acceptCount", "512");
        connector.setProperty("maxKeepAliveRequests", "-1");
        Tomcat tomcat = new Tomcat();
        tomcat.setBaseDir(Files.createTempDirectory("mesh-tomcat").toString());
        tomcat.setConnector(connector);
        StandardContext context = new StandardContext();
        context.setPath("");
        // Reading annotations would need libraries that nothing here uses.
        context.setIgnoreAnnotations(true);
        context.addLifecycleListener(event -> {
            if (event.getType().equals(Lifecycle.CONFIGURE_START_EVENT)) {
                context.setConfigured(true);
            }
        });
        tomcat.getHost().addChild(context);
        Wrapper wrapper = Tomcat.addServlet(context, "mesh", new Servlet());
        wrapper.setAsyncSupported(true);
        context.addServletMappingDecoded("/*", "mesh");
        tomcat.start();
        tomcat.getServer().await();
    }

    private static final class Servlet extends HttpServlet {
        @Override
        protected void doGet(HttpServletRequest request, HttpServletResponse response) throws IOException {
            String path = request.getRequestURI();
            if (!path.startsWith("/later/")) {
                answer(path, response);
                return;
            }
            AsyncContext async = request.startAsync();
            LATER.execute(() -> {
                try {
                    answer(path.substring("/later".length()), response);
                } catch (IOException e) {
                    throw new UncheckedIOException(e);
                } finally {
                    async.complete();
                }
            });
        }

        private static void answer(String path, HttpServletResponse response) throws IOException {
            String error = Mesh.run(path);
            response.setStatus(error == null ? 200 : 502);
            response.getOutputStream().print(error == null ? "ok\n" : error);
        }
    }
}
