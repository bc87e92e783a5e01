<?php
// PHP under PHP-FPM: a process serves one request at a time, and calls with curl, whose connections end with the request.

function child(string $marker, int $call): string
{
    return substr(hash('sha256', getenv('MARKER_KEY') . "/$marker/$call"), 0, 16);
}

/// Waits up to seven milliseconds, by a digit of the marker.
function pause(string $marker, int $digit): void
{
    usleep(500 * hexdec($marker[$digit]));
}

function work(string $marker): void
{
    $digest = $marker;
    for ($i = 0; $i < 2000; $i++) {
        $digest = hash('sha256', $digest, true);
    }
}

/// A handle for call `$i`, which the request uses for all of its calls to that service, one after the other.
function handle(string $marker, int $i): CurlHandle
{
    $bases = [getenv('A') . '/leaf/', getenv('B') . '/branch/'];
    $handle = curl_init($bases[$i % 2] . child($marker, $i));
    curl_setopt_array($handle, [CURLOPT_RETURNTRANSFER => true, CURLOPT_FAILONERROR => true, CURLOPT_TIMEOUT => 20]);
    return $handle;
}

function call(string $marker, int $i): void
{
    static $kept = [];
    $handle = handle($marker, $i);
    if (isset($kept[$i % 2])) {
        curl_setopt($kept[$i % 2], CURLOPT_URL, curl_getinfo($handle, CURLINFO_EFFECTIVE_URL));
    } else {
        $kept[$i % 2] = $handle;
    }
    if (curl_exec($kept[$i % 2]) === false) {
        throw new Exception(curl_error($kept[$i % 2]));
    }
}

/// Calls over a connection that the process keeps for the requests that come after this one.
function call_kept(string $marker, int $i): void
{
    $base = parse_url(getenv($i % 2 ? 'B' : 'A'));
    $path = ($i % 2 ? '/branch/' : '/leaf/') . child($marker, $i);
    $socket = pfsockopen($base['host'], $base['port'], $number, $error, 20);
    fwrite($socket, "GET $path HTTP/1.1\r\nHost: {$base['host']}\r\n\r\n");
    $length = 0;
    while (($line = fgets($socket)) !== false && rtrim($line) !== '') {
        sscanf(strtolower($line), 'content-length: %d', $length);
    }
    stream_get_contents($socket, $length);
}

$styles = [
    'leaf' => fn ($m) => pause($m, 0),
    'seq' => function ($m) {
        for ($i = 0; $i < 3; $i++) {
            call($m, $i);
        }
    },
    'par' => function ($m) {
        $multi = curl_multi_init();
        for ($i = 0; $i < 3; $i++) {
            curl_multi_add_handle($multi, handle($m, $i));
        }
        do {
            curl_multi_exec($multi, $running);
        } while ($running && curl_multi_select($multi) >= 0);
    },
    'sleep' => function ($m) {
        for ($i = 0; $i < 2; $i++) {
            pause($m, $i + 1);
            call($m, $i);
        }
    },
    'cpu' => function ($m) {
        for ($i = 0; $i < 2; $i++) {
            work($m);
            call($m, $i);
        }
    },
    'kept' => function ($m) {
        for ($i = 0; $i < 3; $i++) {
            call_kept($m, $i);
        }
    },
    'late' => function ($m) {
        for ($i = 0; $i < 2; $i++) {
            call($m, $i);
        }
        echo "ok\n";
        fastcgi_finish_request();
        pause($m, 3);
        call($m, 2);
    },
];

[, $style, $marker] = explode('/', parse_url($_SERVER['REQUEST_URI'], PHP_URL_PATH));
$styles[$style]($marker);
if ($style !== 'late') {
    echo "ok\n";
}
