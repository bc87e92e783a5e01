import io.netty.bootstrap.ServerBootstrap;
import io.netty.buffer.Unpooled;
import io.netty.channel.ChannelFuture;
import io.netty.channel.ChannelHandlerContext;
import io.netty.channel.ChannelInitializer;
import io.netty.channel.ChannelOption;
import io.netty.channel.SimpleChannelInboundHandler;
import io.netty.channel.nio.NioEventLoopGroup;
import io.netty.channel.socket.SocketChannel;
import io.netty.channel.socket.nio.NioServerSocketChannel;
import io.netty.handler.codec.http.DefaultFullHttpResponse;
import io.netty.handler.codec.http.FullHttpRequest;
import io.netty.handler.codec.http.HttpHeaderNames;
import io.netty.handler.codec.http.HttpObjectAggregator;
import io.netty.handler.codec.http.HttpResponseStatus;
import io.netty.handler.codec.http.HttpServerCodec;
import io.netty.handler.codec.http.HttpVersion;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.Executor;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.atomic.AtomicReference;

/**
 * Netty: event loops read and write, threads of a pool do what blocks. Below {@code /loop} the loops call themselves, through
 * HttpClient, and nobody waits.
 */
public final class MeshNetty {
    private static final ExecutorService WORKERS = Executors.newFixedThreadPool(64);

    public static void main(String[] arguments) throws Exception {
        new ServerBootstrap()
                .group(new NioEventLoopGroup(1), new NioEventLoopGroup(2))
                .channel(NioServerSocketChannel.class)
                .option(ChannelOption.SO_BACKLOG, 512)
                .childHandler(new ChannelInitializer<SocketChannel>() {
                    @Override
                    protected void initChannel(SocketChannel channel) {
                        channel.pipeline().addLast(new HttpServerCodec(), new HttpObjectAggregator(1 << 16), new Handler());
                    }
                })
                .bind(Integer.parseInt(System.getenv("PORT")))
                .sync()
                .channel()
                .closeFuture()
                .sync();
    }

    private static final class Handler extends SimpleChannelInboundHandler<FullHttpRequest> {
        @Override
        protected void channelRead0(ChannelHandlerContext context, FullHttpRequest request) {
            String path = request.uri();
            if (path.startsWith("/late/") || path.startsWith("/after/")) {
                WORKERS.execute(() -> late(context, path.split("/")));
                return;
            }
            if (path.startsWith("/named/") || path.startsWith("/untold/")) {
                // An array lies between the job and the connection: no rule follows that.
                AtomicReference<ChannelHandlerContext[]> later = new AtomicReference<>(new ChannelHandlerContext[] {context});
                WORKERS.execute(() -> {
                    String error = path.startsWith("/named/") ? Mesh.runNamed(path) : Mesh.run(path.substring("/untold".length()));
                    answer(later.get()[0], error);
                });
                return;
            }
            if (!path.startsWith("/loop/")) {
                WORKERS.execute(() -> answer(context, Mesh.run(path)));
                return;
            }
            String[] parts = path.split("/");
            switch (parts[2]) {
                case "task" -> context.executor().execute(() -> callAll(context, parts, null));
                case "back" -> callAll(context, parts, context.executor());
                default -> callAll(context, parts, null);
            }
        }

        /** Calls without waiting; what comes after a call is left to that executor, or to whoever completes the call. */
        private static void callAll(ChannelHandlerContext context, String[] parts, Executor executor) {
            CompletableFuture<?>[] all = new CompletableFuture<?>[parts[2].equals("par") ? 3 : 1];
            for (int i = 0; i < all.length; i++) {
                all[i] = Mesh.sendAsync(parts[3], i);
            }
            CompletableFuture<?> done = CompletableFuture.allOf(all);
            for (int i = all.length; i < 3; i++) {
                int call = i;
                done = executor == null
                        ? done.thenCompose(before -> Mesh.sendAsync(parts[3], call))
                        : done.thenComposeAsync(before -> Mesh.sendAsync(parts[3], call), executor);
            }
            done.whenComplete((nothing, error) -> answer(context, error == null ? null : error.toString()));
        }

        /** Answers, and calls once more later; below {@code /after} there is nothing else to be done. */
        private static void late(ChannelHandlerContext context, String[] parts) {
            int calls = parts[1].equals("late") ? 2 : 0;
            answer(context, Mesh.calls(parts[2], 0, calls)).syncUninterruptibly();
            Mesh.nap(parts[2]);
            Mesh.calls(parts[2], calls, calls + 1);
        }

        private static ChannelFuture answer(ChannelHandlerContext context, String error) {
            byte[] body = (error == null ? "ok\n" : error).getBytes();
            DefaultFullHttpResponse response = new DefaultFullHttpResponse(
                    HttpVersion.HTTP_1_1,
                    error == null ? HttpResponseStatus.OK : HttpResponseStatus.BAD_GATEWAY,
                    Unpooled.wrappedBuffer(body));
            response.headers().setInt(HttpHeaderNames.CONTENT_LENGTH, body.length);
            return context.writeAndFlush(response);
        }
    }
}
