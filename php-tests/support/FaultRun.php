<?php

declare(strict_types=1);

namespace SharedState\Tests\Support;

/**
 * One fault, under load, seen from outside: two hosts with workers on one Redis, clients that read a few names
 * whose tokens live for seconds, a healthy while, the fault, and a while after it. The witness is the pages' own
 * log of mints and what each answer said; nothing is asked of the extension.
 */
final class FaultRun
{
    public const TTL_S = 4;
    public const MINT_MS = 50;
    public const WORKERS = 4;
    public const LEASE_MS = 1500;
    private const NAMES = 4;
    private const CLIENTS = 6;
    private const PAUSE_S = 0.02;
    private const BEFORE_S = 1.5;
    private const AFTER_S = 1.5;
    private const MOST_RECOVERY_S = 15.0;

    /** From a mint to its refresh_at, by default settings: a fifth of the life is margin, renewal at four fifths. */
    private const LIFETIME_S = 0.8 * 0.8 * self::TTL_S;

    /** @var list<Response> */
    private array $responses = [];
    private float $began;
    private float $broken = 0.0;
    private float $mended = 0.0;
    private ?float $recovery = null;

    private Crowd $prober;
    private int $probes = 0;
    /** @var array<int, array{id: int, token: string|bool|null}> by the host that is asked first */
    private array $probing = [];

    /** For requests of a test's own, such as a mint that hangs: they are not judged. */
    public readonly Crowd $aside;

    /** @param array{Fpm, Fpm} $hosts */
    public function __construct(public readonly array $hosts, private readonly MintLog $mints, private readonly string $page)
    {
        $this->prober = new Crowd();
        $this->aside = new Crowd();
    }

    /**
     * @param callable(self): mixed $break called once; what takes long in it holds up the load
     * @param callable(self): mixed $mend called once, so many seconds later
     * @param callable(self, float): mixed $meanwhile called all the time in between, with the seconds since the fault
     */
    public function through(float $seconds, callable $break, callable $mend, ?callable $meanwhile = null): void
    {
        $this->began = microtime(true);
        $most = self::BEFORE_S + $seconds + self::MOST_RECOVERY_S + self::AFTER_S;
        $request = fn (int $client, Crowd $crowd) => $crowd->send(
            $this->hosts[$client % 2]->socket(),
            $this->page,
            ['name' => 'crm:' . random_int(1, self::NAMES), 'ms' => self::MINT_MS, 'ttl' => self::TTL_S],
        );
        $crowd = new Crowd();
        $this->responses = $crowd->load(self::CLIENTS, $most, self::PAUSE_S, fn (int $client) => $request($client, $crowd),
            function (float $elapsed) use ($seconds, $break, $mend, $meanwhile): bool {
                $now = microtime(true);
                $this->aside->run(0.0);
                if ($this->broken === 0.0) {
                    if ($elapsed > self::BEFORE_S) {
                        $this->broken = $now;
                        $break($this);
                    }
                } elseif ($this->mended === 0.0) {
                    if ($now - $this->broken > $seconds) {
                        $mend($this);
                        $this->mended = microtime(true);
                    } elseif ($meanwhile !== null) {
                        $meanwhile($this, $now - $this->broken);
                    }
                } else {
                    $this->probe();
                    return $this->recovery === null || $now - $this->mended < $this->recovery + self::AFTER_S;
                }
                return true;
            });
    }

    /** A request of the test's own, such as a mint that hangs; its time does not count. */
    public function send(Fpm $host, string $name, int $ms): int
    {
        return $this->aside->send($host->socket(), $this->page, ['name' => $name, 'ms' => $ms, 'ttl' => self::TTL_S]);
    }

    /**
     * Whether the fleet is one again: a name minted on one host is served by the other, both ways. Each try has
     * names of its own, one after the other.
     */
    private function probe(): void
    {
        if ($this->recovery !== null) {
            return;
        }
        $this->prober->run(0.0005);
        $done = $this->prober->take();
        if ($this->probing === []) {
            $this->probes++;
            foreach ([0, 1] as $first) {
                $id = $this->prober->send($this->hosts[$first]->socket(), $this->page, ['name' => "probe$first:$this->probes", 'ms' => 0]);
                $this->probing[$first] = ['id' => $id, 'token' => null];
            }
            return;
        }
        foreach ($this->probing as $first => $probe) {
            $response = $done[$probe['id']] ?? null;
            if ($response === null) {
                continue;
            }
            if ($probe['token'] === null && $response->token() !== null) {
                $id = $this->prober->send($this->hosts[1 - $first]->socket(), $this->page, ['name' => "probe$first:$this->probes", 'ms' => 0]);
                $this->probing[$first] = ['id' => $id, 'token' => $response->token()];
            } else {
                $this->probing[$first] = ['id' => -1, 'token' => $response->token() === $probe['token'] && $probe['token'] !== null];
            }
        }
        if (array_column($this->probing, 'id') === [-1, -1]) {
            if (array_column($this->probing, 'token') === [true, true]) {
                $this->recovery = microtime(true) - $this->mended;
            }
            $this->probing = [];
        }
    }

    /** @return list<Response> */
    public function failed(): array
    {
        return array_values(array_filter($this->responses, static fn (Response $response): bool => $response->token() === null));
    }

    /** Mints of the load's names. */
    public function mints(): int
    {
        return count(array_filter($this->mints->events(), static fn (array $event): bool => str_starts_with($event['name'], 'crm:')));
    }

    /** Lifetimes that began in that time; $perHost: during the fault each host has its own. */
    public function lifetimes(bool $perHost): int
    {
        $count = static fn (float $seconds): int => (int) ceil($seconds / self::LIFETIME_S) + 1;
        $all = $count(microtime(true) - $this->began);
        return self::NAMES * ($all + ($perHost ? $count($this->mended - $this->broken) : 0));
    }

    /** @return list<string> what was served and should not have been */
    public function wrong(): array
    {
        $minted = array_column($this->mints->events('minted'), 'name', 'name');
        $wrong = [];
        // By version: of two mints at once, one of them made without Redis, the later one need not be the newer.
        /** @var array<string, list<array{float, float, int, string}>> per host and name: when it was asked and answered, and the version */
        $served = [];
        foreach ($this->responses as $response) {
            $said = $response->json();
            if (!isset($said['token'])) {
                continue;
            }
            $token = $said['token'];
            [$name, , $expires, $version] = explode('/', $token) + ['', '', '0', '0'];
            if (!isset($minted[$token])) {
                $wrong[] = "never minted: $token";
            }
            if ($said['uptime'] >= (float) $expires) {
                $wrong[] = "expired: $token at {$said['uptime']}";
            }
            $served["{$said['host']} $name"][] = [$response->started, $response->started + $response->elapsed, (int) $version, $token];
        }
        foreach ($served as $of => $answers) {
            // Older than one that had been answered before this was asked for.
            usort($answers, static fn (array $a, array $b): int => $a[1] <=> $b[1]);
            $seen = [];
            foreach ($answers as [$started, $ended, $version, $token]) {
                foreach (array_reverse($seen) as [$before, $newest]) {
                    if ($before < $started) {
                        if ($newest > $version) {
                            $wrong[] = "older than one served before on $of: $token";
                        }
                        break;
                    }
                }
                $seen[] = [$ended, max($version, $seen === [] ? 0 : end($seen)[1])];
            }
        }
        return $wrong;
    }

    /** Workers that do not answer at the end: each has to hold one of so many requests at once. */
    public function stuck(): int
    {
        $crowd = new Crowd();
        $stuck = 0;
        foreach ($this->hosts as $host) {
            for ($i = 0; $i < self::WORKERS; $i++) {
                $crowd->send($host->socket(), dirname($this->page) . '/hold.php', ['ms' => 300]);
            }
        }
        $crowd->run(5.0);
        return 2 * self::WORKERS - count($crowd->take());
    }

    /** @return list<float> how long each request took, the longest first */
    public function waits(): array
    {
        $waits = array_map(static fn (Response $response): float => $response->elapsed, $this->responses);
        rsort($waits);
        return $waits;
    }

    public function requests(): int
    {
        return count($this->responses);
    }

    /** Seconds from the mending until the fleet was one again; null: not within 15 s. */
    public function recovery(): ?float
    {
        return $this->recovery;
    }
}
