<?php

declare(strict_types=1);

namespace SharedState\Polyfill;

/** Keeps records and counters. Nobody sees half a change; two changes of one key do not overlap. */
abstract class Store
{
    private const TOLD_AGAIN_S = 3600;

    private static ?self $current = null;

    /** APCu where it can be used: then all workers of this PHP master share. Else an array, which ends with the process, or the request of a web server. */
    public static function current(): self
    {
        return self::$current ??= self::chosen();
    }

    private static function chosen(): self
    {
        $apcu = \function_exists('apcu_enabled') && apcu_enabled();
        $store = $apcu ? new ApcuStore(Settings::current()->text('prefix')) : new ArrayStore();
        // A machine that serves pages may be the one where somebody forgot the extension. Said, and not thrown.
        if (!\in_array(PHP_SAPI, ['cli', 'cli-server', 'phpdbg', 'embed'], true) && (!$apcu || apcu_add('sharedstate:told', 1, self::TOLD_AGAIN_S))) {
            Log::warn('the extension is not loaded and its PHP polyfill answers, which shares nothing with other hosts'
                . ($apcu ? '' : ' and, without APCu, forgets everything at the end of the request'));
        }
        return $store;
    }

    abstract public function name(): string;

    abstract public function read(Key $key): Record;

    /**
     * @template T
     * @param \Closure(Record): T $change
     * @return T
     */
    abstract public function change(Key $key, #[\SensitiveParameter] \Closure $change): mixed;

    /** @return iterable<Key> of all records, in no particular order; a look at them counts as no use */
    abstract public function keys(): iterable;

    /** Who has the place of that number among the families; `$asking`, if it was free. */
    abstract public function family(int $number, ?string $asking = null): ?string;

    /** What the extension calls memory of this kind. */
    abstract public function tier(): string;

    abstract public function count(string $counter): void;

    abstract public function counted(string $counter): int;
}
