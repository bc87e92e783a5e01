# WEBrick, a thread per connection; each thread keeps one Net::HTTP connection to the next service.
require "net/http"
require "uri"
require "webrick"

NEXT = URI(ENV.fetch("NEXT", "http://127.0.0.1:9"))

def get(path)
  http = Thread.current[:next] ||= Net::HTTP.new(NEXT.host, NEXT.port).tap { |h| h.keep_alive_timeout = 60 }.start
  http.get(path)
end

server = WEBrick::HTTPServer.new(
  BindAddress: ENV.fetch("HOST", "0.0.0.0"),
  Port: ENV.fetch("PORT").to_i,
  MaxClients: 100,
  AccessLog: [],
  DoNotReverseLookup: true,
  Logger: WEBrick::Log.new($stderr, WEBrick::Log::WARN)
)

server.mount_proc("/hello") { |request, response| response.body = "hello #{request.path.split("/").last}\n" }
server.mount_proc("/status") { |request, response| response.status = request.path.split("/").last.to_i }
server.mount_proc("/slow") do |request, response|
  sleep(request.path.split("/").last.to_i / 1000.0)
  response.body = "slow\n"
end
server.mount_proc("/echo") { |request, response| response.body = "#{(request.body || "").bytesize}\n" }
server.mount_proc("/call") do |request, response|
  answer = get("/hello/#{request.path.split("/").last}")
  response.status = answer.code.to_i
  response.body = answer.body
end

trap("TERM") { server.shutdown }
server.start
