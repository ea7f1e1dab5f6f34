<?php

/**
 * A network between the workers and Redis that can be made bad while they talk:
 *
 *   php network.php LISTEN-PORT REDIS-PORT MODE-FILE
 *
 * The mode file says "pass", "hole" (nothing is forwarded and nothing is closed), "slow" (each reply comes 200 ms
 * late), "drip" (a reply comes byte by byte, one in 20 ms) or "cut N" (what is open when N changes is silent for
 * ever, as behind a firewall that forgot it; new connections work).
 */

declare(strict_types=1);

const SLOW_S = 0.2;
const DRIP_S = 0.02;

[, $listen, $redis, $modeFile] = $argv;
$server = stream_socket_server("tcp://127.0.0.1:$listen") ?: exit(1);
/** @var array<int, array{from: resource, to: resource, reply: bool, bytes: string, due: float}> $ways */
$ways = [];
$former = '';

while (true) {
    clearstatcache();
    $mode = trim((string) @file_get_contents($modeFile));
    if ($mode !== $former && str_starts_with($mode, 'cut')) {
        // Kept in a variable: closed, it would be noticed.
        $silent[] = $ways;
        $ways = [];
    }
    $former = $mode;
    $read = $mode === 'hole' ? [] : array_map(static fn (array $way) => $way['from'], $ways);
    $read['server'] = $server;
    $none = null;
    if (!@stream_select($read, $none, $none, 0, 5_000)) {
        $read = [];
    }
    if (isset($read['server'])) {
        unset($read['server']);
        $client = stream_socket_accept($server, 0);
        $upstream = @stream_socket_client("tcp://127.0.0.1:$redis", $code, $message, 0.2);
        if ($client && $upstream) {
            stream_set_blocking($client, false);
            stream_set_blocking($upstream, false);
            $ways[] = ['from' => $client, 'to' => $upstream, 'reply' => false, 'bytes' => '', 'due' => 0.0];
            $ways[] = ['from' => $upstream, 'to' => $client, 'reply' => true, 'bytes' => '', 'due' => 0.0];
        }
    }
    foreach (array_keys($read) as $id) {
        if (!isset($ways[$id])) {
            continue;
        }
        $bytes = (string) @fread($ways[$id]['from'], 65536);
        if ($bytes === '' && feof($ways[$id]['from'])) {
            close($ways, $id);
            continue;
        }
        $ways[$id]['bytes'] .= $bytes;
        if ($mode === 'slow' && $ways[$id]['reply']) {
            $ways[$id]['due'] = microtime(true) + SLOW_S;
        }
    }
    foreach ($ways as $id => $way) {
        if (!isset($ways[$id]) || $way['bytes'] === '' || $mode === 'hole' || $way['due'] > microtime(true)) {
            continue;
        }
        $drips = $mode === 'drip' && $way['reply'];
        $sent = @fwrite($way['to'], $drips ? $way['bytes'][0] : $way['bytes']);
        if ($sent === false) {
            close($ways, $id);
            continue;
        }
        $ways[$id]['bytes'] = substr($way['bytes'], $sent);
        $ways[$id]['due'] = $drips ? microtime(true) + DRIP_S : 0.0;
    }
}

/** Both directions of the connection that this way belongs to. */
function close(array &$ways, int $id): void
{
    foreach ([$id, $id ^ 1] as $half) {
        if (isset($ways[$half])) {
            fclose($ways[$half]['from']);
            unset($ways[$half]);
        }
    }
}
