<?php

declare(strict_types=1);

namespace SharedState\Polyfill;

/** In APCu, for all workers of one PHP master. A short lock by apcu_add() makes a change atomic. */
final class ApcuStore extends Store
{
    /** Part of every key, so that another release does not read what this one wrote. */
    private const FORMAT = 2;
    /** A process that was killed in the middle of a change holds the others up for at most so long. */
    private const LOCK_S = 1;
    private const PATIENCE_S = 2.5;

    private readonly string $prefix;

    public function __construct(string $prefix)
    {
        $this->prefix = "$prefix:" . self::FORMAT . ':';
    }

    public function name(): string
    {
        return 'apcu';
    }

    public function read(Key $key): Record
    {
        $record = apcu_fetch($this->prefix . $key->text());
        return $record instanceof Record ? $record : new Record();
    }

    public function change(Key $key, #[\SensitiveParameter] \Closure $change): mixed
    {
        $at = $this->prefix . $key->text();
        $me = random_int(1, PHP_INT_MAX);
        $patience = microtime(true) + self::PATIENCE_S;
        while (!apcu_add("$at:lock", $me, self::LOCK_S) && microtime(true) < $patience) {
            usleep(300);
        }
        try {
            $record = $this->read($key);
            $answer = $change($record);
            $now = microtime(true);
            if (!apcu_store($at, $record, (int) ceil($record->lingersUntil($now) - $now))) {
                Log::warn('APCu has no room: raise apc.shm_size, or tokens and rates are fetched again and again');
            }
            return $answer;
        } finally {
            // Only our own: a slow process may have lost it.
            if (apcu_cas("$at:lock", $me, 0)) {
                apcu_delete("$at:lock");
            }
        }
    }

    public function keys(): iterable
    {
        // A lock has one ":" more, a counter begins otherwise.
        $records = new \APCUIterator('/^' . preg_quote($this->prefix, '/') . '[ts]:[^:]*:[^:]*$/D', APC_ITER_KEY);
        foreach ($records as $at => $_) {
            yield Key::of(substr($at, \strlen($this->prefix)));
        }
    }

    public function family(int $number, ?string $asking = null): ?string
    {
        $at = "{$this->prefix}family:$number";
        $family = apcu_fetch($at);
        if ($family === false && $asking !== null) {
            // Another process may have been faster.
            apcu_add($at, $asking);
            $family = apcu_fetch($at);
        }
        return \is_string($family) ? $family : null;
    }

    public function tier(): string
    {
        return 'table';
    }

    public function count(string $counter): void
    {
        apcu_inc($this->prefix . $counter);
    }

    public function counted(string $counter): int
    {
        return (int) apcu_fetch($this->prefix . $counter);
    }
}
