<?php

declare(strict_types=1);

namespace SharedState\Tests\Support;

use RuntimeException;

/** Three masters with a replica each, which agree within a second that one is down. */
final class RedisCluster
{
    /** @var array<int, RedisServer> by port */
    public array $nodes = [];

    /** With an authority, nodes speak TLS with each other and with clients, and nothing else. */
    public function __construct(string $folder, private readonly ?Authority $authority = null)
    {
        for ($i = 0; $i < 6; $i++) {
            $port = RedisServer::freePort();
            mkdir("$folder/node-$port");
            $this->nodes[$port] = new RedisServer("$folder/node-$port", [
                ...($authority === null ? ['--port', (string) $port]
                    : ['--port', '0', '--tls-port', (string) $port, '--tls-cluster', 'yes', ...$authority->serverOptions("node-$port")]),
                '--cluster-enabled', 'yes', '--cluster-port', (string) RedisServer::freePort(),
                '--cluster-node-timeout', '1000', '--cluster-config-file', 'nodes.conf', '--repl-diskless-sync-delay', '0',
            ]);
        }
        $addresses = implode(' ', array_map(static fn (int $port): string => "127.0.0.1:$port", array_keys($this->nodes)));
        $tls = '';
        if ($authority !== null) {
            [$certificate, $key] = $authority->sign('administrator');
            $tls = "--tls --cacert {$authority->certificate()} --cert $certificate --key $key";
        }
        exec("timeout 30 redis-cli $tls --cluster create $addresses --cluster-replicas 1 --cluster-yes 2>&1", $said, $status);
        if ($status !== 0) {
            throw new RuntimeException('no cluster: ' . implode("\n", $said));
        }
        $deadline = microtime(true) + 15;
        foreach ($this->nodes as $node) {
            // A replica that has nothing yet is not promoted.
            while (!str_contains((string) $node->command('CLUSTER', 'INFO'), 'cluster_state:ok')
                || !preg_match('/role:master|master_link_status:up/', (string) $node->command('INFO', 'replication'))) {
                if (microtime(true) > $deadline) {
                    throw new RuntimeException('the cluster does not become whole');
                }
                usleep(50_000);
            }
        }
    }

    /** Two of the six are named; the others are found. */
    public function dsn(): string
    {
        [$first, , , $fourth] = array_keys($this->nodes);
        $scheme = $this->authority === null ? 'redis' : 'rediss';
        return "$scheme+cluster://127.0.0.1:$first,127.0.0.1:$fourth";
    }

    /** @return list<array{int, string}> the masters' ports and ids; the first holds the slot of the prefix */
    public function masters(): array
    {
        $masters = [];
        foreach ($this->nodes as $node) {
            try {
                $rows = $node->command('CLUSTER', 'SLOTS');
            } catch (RuntimeException) {
                continue;
            }
            foreach ($rows as [$first, $last, [, $port, $id]]) {
                $holds = $first <= $this->slotBy($node) && $this->slotBy($node) <= $last;
                $holds ? array_unshift($masters, [$port, $id]) : $masters[] = [$port, $id];
            }
            return array_values(array_unique($masters, SORT_REGULAR));
        }
        throw new RuntimeException('no node answers');
    }

    private function slotBy(RedisServer $node): int
    {
        return (int) $node->command('CLUSTER', 'KEYSLOT', 'sharedstate');
    }

    /** To another master, key by key, as an administrator's tool does it. */
    public function moveSlot(): void
    {
        [[$from, $fromId], [$to, $toId]] = $this->masters();
        $slot = (string) $this->slotBy($this->nodes[$from]);
        $this->nodes[$to]->command('CLUSTER', 'SETSLOT', $slot, 'IMPORTING', $fromId);
        $this->nodes[$from]->command('CLUSTER', 'SETSLOT', $slot, 'MIGRATING', $toId);
        while (($keys = $this->nodes[$from]->command('CLUSTER', 'GETKEYSINSLOT', $slot, '10')) !== []) {
            $this->nodes[$from]->command('MIGRATE', '127.0.0.1', (string) $to, '', '0', '1000', 'KEYS', ...$keys);
        }
        foreach ([$to, $from] as $port) {
            $this->nodes[$port]->command('CLUSTER', 'SETSLOT', $slot, 'NODE', $toId);
        }
    }
}
