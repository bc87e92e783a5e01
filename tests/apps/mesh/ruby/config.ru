# Puma's thread pool, Net::HTTP on connections kept in a pool.
require "digest/sha2" # not by const_missing, which threads would race for
require "net/http"

KEY = ENV.fetch("MARKER_KEY")
BASES = [[URI(ENV.fetch("A")), "/leaf/"], [URI(ENV.fetch("B")), "/branch/"]].freeze
POOLS = BASES.map { Queue.new }.freeze

def child(marker, call) = Digest::SHA256.hexdigest("#{KEY}/#{marker}/#{call}")[0, 16]

def pause(marker, digit) = sleep(marker[digit].hex / 2000.0)

def work(marker)
  digest = marker
  300.times { digest = Digest::SHA256.digest(digest) }
end

def connection(base)
  POOLS[base].pop(true)
rescue ThreadError
  uri = BASES[base][0]
  http = Net::HTTP.new(uri.host, uri.port)
  http.keep_alive_timeout = 60
  http.start
end

def call(marker, i)
  base = i % 2
  http = connection(base)
  http.get(BASES[base][1] + child(marker, i))
  POOLS[base] << http
end

STYLES = {
  "seq" => ->(m) { 3.times { |i| call(m, i) } },
  "par" => ->(m) { 3.times.map { |i| Thread.new { call(m, i) } }.each(&:join) },
  "sleep" => ->(m) { 2.times { |i| pause(m, i + 1); call(m, i) } },
  "cpu" => ->(m) { 2.times { |i| work(m); call(m, i) } }
}.freeze

run lambda { |env|
  _, style, marker = env["PATH_INFO"].split("/")
  STYLES.fetch(style).call(marker)
  [200, { "content-type" => "text/plain" }, ["ok\n"]]
}
