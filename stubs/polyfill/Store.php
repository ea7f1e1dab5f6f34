<?php

declare(strict_types=1);

namespace SharedState\Polyfill;

/** Keeps records and counters. Nobody sees half a change; two changes of one key do not overlap. */
abstract class Store
{
    private static ?self $current = null;

    /** APCu where it can be used: then all workers of this PHP master share. Else an array, which ends with the process, or the request of a web server. */
    public static function current(): self
    {
        $apcu = \function_exists('apcu_enabled') && apcu_enabled();
        return self::$current ??= $apcu ? new ApcuStore(Settings::current()->text('prefix')) : new ArrayStore();
    }

    abstract public function name(): string;

    abstract public function read(Key $key): Record;

    /**
     * @template T
     * @param \Closure(Record): T $change
     * @return T
     */
    abstract public function change(Key $key, #[\SensitiveParameter] \Closure $change): mixed;

    abstract public function count(string $counter): void;

    abstract public function counted(string $counter): int;
}
