<?php

declare(strict_types=1);

namespace SharedState\Polyfill;

use SharedState\InvalidValue;
use SharedState\MintFailed;
use SharedState\RetryLater;
use SharedState\NoSource;
use SharedState\RateUnavailable;
use SharedState\WaitTimeout;

/**
 * One lookup that may end in a mint: whoever has something usable is served, one process mints, who has nothing
 * waits, and never past its budget. The right to mint is in the {@see Record} and ends by itself after
 * `token.max_mint_ms`: nobody renews it in the background.
 */
final class Flight
{
    private const POLL_US = 5_000;
    /** An invalidation may refuse one mint; a second one in the same call is somebody else's to deal with. */
    private const MAX_MINTS = 2;

    /** @var array<string, array{right: string, fiber: ?\WeakReference<\Fiber>, key: Key}> the mints that this process is in */
    private static array $mine = [];
    private static bool $watched = false;

    /** How the making ended, where it came to it: 'made' or 'failed'; 'backoff' and 'busy' where it was not our turn. */
    private ?string $ended = null;

    /**
     * @param \Closure(mixed, int, float): Entry $read of the callable's answer, the version and the time before it was
     *        called; throws {@see Unusable}
     */
    public function __construct(
        private readonly Key $key,
        private readonly ?\Closure $make,
        #[\SensitiveParameter] private readonly \Closure $read,
        private readonly float $waitUntil,
        #[\SensitiveParameter] private readonly ?string $rejected = null,
        /** A sheet of that age is renewed; null: what is due. */
        private readonly ?float $renewAtAge = null,
    ) {
    }

    public function ended(): ?string
    {
        return $this->ended;
    }

    public function run(): Entry
    {
        $settings = Settings::current();
        $store = Store::current();
        $mints = 0;
        while (true) {
            $now = microtime(true);
            $have = $store->read($this->key)->served($now);
            if ($have !== null && $this->rejected !== null && $have->is($this->rejected)) {
                $have = null;
            }
            if ($have !== null && ($this->make === null || !$this->wants($have, $now))) {
                return $this->hit($have);
            }
            if (isset(self::$mine[$this->key->text()])) {
                return $have !== null ? $this->hit($have) : throw $this->recursion();
            }
            $right = bin2hex(random_bytes(8));
            $claim = fn (Record $record): Claimed => $record->claim(
                self::holder($right), $have?->version ?? 0, $this->rejected, $settings->seconds('token.max_mint_ms'), $now);
            $claimed = $store->change($this->key, $claim);
            if ($claimed->entry !== null) {
                return $this->hit($claimed->entry);
            }
            if ($claimed->wait !== null) {
                $this->ended = 'backoff';
                return $have !== null ? $this->hit($have) : throw $this->failed($claimed->reason, $claimed->wait);
            }
            if ($claimed->version === null) {
                $this->ended = 'busy';
                if ($have !== null) {
                    return $this->hit($have);
                }
                if ($now >= $this->waitUntil) {
                    throw $this->waited();
                }
                usleep(self::POLL_US);
                continue;
            }
            if ($this->make === null) {
                $store->change($this->key, static fn (Record $record) => $record->abandon(self::holder($right), $now));
                throw $this->nothing($store->read($this->key)->known(), $now);
            }
            $this->ended = null;
            if (++$mints > self::MAX_MINTS) {
                $store->change($this->key, static fn (Record $record) => $record->abandon(self::holder($right), $now));
                throw $this->waited();
            }
            $made = $this->mint($right, $claimed->version, $claimed->reason);
            if ($made !== null) {
                return $made;
            }
        }
    }

    /** Null when what it brought was refused: look again. */
    private function mint(string $right, int $version, string $why): ?Entry
    {
        $text = $this->key->text();
        $from = microtime(true);
        self::watch();
        // Weak: a fiber that nobody else holds is to be destroyed, and its right freed.
        $fiber = \Fiber::getCurrent() === null ? null : \WeakReference::create(\Fiber::getCurrent());
        self::$mine[$text] = ['right' => $right, 'fiber' => $fiber, 'key' => $this->key];
        $store = Store::current();
        $this->key->isToken ?: Tally::add($this->key, 'called');
        try {
            $answer = ($this->make)(['name' => $this->key->name, 'version' => $version]);
            $entry = ($this->read)($answer, $version, $from);
            $this->mustFit(\strlen(serialize([$entry->value, $entry->kept])));
        } catch (Unusable $why) {
            return $this->afterFailure($right, $why, $why->getMessage());
        } catch (\Exception $thrown) {
            return $this->afterFailure($right, $thrown, self::named($thrown));
        } catch (\Error $bug) {
            // A bug in the callable, or an answer that it was not written for.
            return $this->afterBug($right, $bug);
        } finally {
            // Also when its fiber is destroyed. A right that was committed or failed is gone already.
            unset(self::$mine[$text]);
            if (!isset($entry)) {
                $store->change($this->key, static fn (Record $record) => $record->abandon(self::holder($right), microtime(true)));
            }
        }
        $accepted = $store->change($this->key, static fn (Record $record): bool => $record->commit(self::holder($right), $entry, microtime(true)));
        if (!$accepted) {
            $store->change($this->key, static fn (Record $record) => $record->abandon(self::holder($right), microtime(true)));
            return null;
        }
        $this->ended = 'made';
        Tally::add($this->key, $this->key->isToken ? "minted_$why" : 'minted');
        return $entry;
    }

    /** The old value, where there is a usable one; else the exception. */
    private function afterFailure(string $right, \Exception $thrown, string $sentence): Entry
    {
        $reason = Text::redacted($sentence);
        $pause = $this->fail($right, $reason, $thrown instanceof RetryLater ? $thrown->seconds : 0.0);
        $old = Store::current()->read($this->key)->served(microtime(true));
        $unusable = $thrown instanceof Unusable;
        if ($old !== null && !($this->rejected !== null && $old->is($this->rejected))) {
            Log::warn($unusable ? $this->act() . ": $reason; the old value is served" : $this->act() . " failed, the old value is served: $reason");
            return $this->hit($old);
        }
        Log::warn($unusable ? $this->act() . ": $reason" : $this->act() . " failed, and nothing is served: $reason");
        throw $unusable ? new InvalidValue($this->act() . ": $sentence") : $this->failed($reason, $pause, $thrown);
    }

    /** A page fails with it only where it has nothing else. */
    private function afterBug(string $right, \Error $bug): Entry
    {
        $reason = Text::redacted(self::named($bug));
        $this->fail($right, $reason);
        $old = Store::current()->read($this->key)->served(microtime(true));
        if ($old === null || ($this->rejected !== null && $old->is($this->rejected))) {
            throw $bug;
        }
        Log::error($this->act() . " failed, the old value is served: $reason");
        return $this->hit($old);
    }

    /** @param float $wait nobody should ask again before */
    private function fail(string $right, string $reason, float $wait = 0.0): float
    {
        $this->ended = 'failed';
        $settings = Settings::current();
        $store = Store::current();
        Tally::add($this->key, 'failed');
        $now = microtime(true);
        // With a sheet to serve an outage of its source must not cost it many times the usual calls.
        $hasSheet = !$this->key->isToken && $store->read($this->key)->served($now) !== null;
        $least = max($wait, $hasSheet ? min($settings->seconds('fx.refresh_interval_s') / 4, 900.0) : 0.0);
        $base = $settings->seconds('token.failure_backoff_ms');
        return $store->change($this->key, static fn (Record $record): float => $record->fail(self::holder($right), $reason, $base, $least, $now));
    }

    private function wants(Entry $entry, float $now): bool
    {
        return $this->renewAtAge === null ? $entry->isDue($now) : $now - $entry->mintedAt >= $this->renewAtAge;
    }

    private function hit(#[\SensitiveParameter] Entry $entry): Entry
    {
        Tally::add($this->key, 'hits');
        return $entry;
    }

    private function mustFit(int $bytes): void
    {
        $limit = (int) Settings::current()->number('host.value_size');
        if ($bytes > $limit) {
            throw new Unusable($this->key->noun() . " has $bytes bytes with what is kept beside it, and at most $limit fit: "
                . 'raise sharedstate.host.value_size or keep fewer fields');
        }
    }

    /** `exit()` and fatal errors run no `finally`: at the end of the request nobody is to wait for us. */
    private static function watch(): void
    {
        if (!self::$watched) {
            self::$watched = true;
            register_shutdown_function(static function (): void {
                foreach (self::$mine as ['right' => $right, 'key' => $key]) {
                    Store::current()->change($key, static fn (Record $record) => $record->abandon(self::holder($right), microtime(true)));
                }
            });
        }
    }

    /** A child that the callable forks has not the right of its parent. */
    private static function holder(string $right): string
    {
        return $right . ' ' . getmypid();
    }

    /** Of which process a holder is. */
    public static function process(string $holder): int
    {
        return (int) substr((string) strrchr($holder, ' '), 1);
    }

    /** The class as people write it: an anonymous one carries its file behind a NUL. */
    private static function named(\Throwable $thrown): string
    {
        return strtok($thrown::class, "\0") . ($thrown->getMessage() === '' ? '' : ": {$thrown->getMessage()}");
    }

    private function act(): string
    {
        return $this->key->act() . ' ' . $this->key->noun();
    }

    private function failed(string $reason, float $wait, ?\Exception $previous = null): MintFailed
    {
        $seconds = number_format(max($wait, 0.1), 1, '.', '');
        return new MintFailed($this->act() . " failed: $reason; the next attempt is allowed in $seconds s", 0, $previous, $wait);
    }

    private function waited(): WaitTimeout
    {
        Store::current()->count('wait_timeouts');
        return new WaitTimeout("{$this->key->noun()} was not there within the wait budget: another worker is still {$this->key->act()} it. "
            . "Make {$this->key->callable()} faster or raise sharedstate.token.wait_timeout_ms");
    }

    private function recursion(): WaitTimeout
    {
        $name = $this->key->name;
        return new WaitTimeout(self::$mine[$this->key->text()]['fiber']?->get() === \Fiber::getCurrent()
            ? "recursion: the callable of '$name' asks for '$name'"
            : "the callable of '$name' is suspended in another fiber of this thread; resume it before asking for '$name' again");
    }

    private function nothing(?Entry $old, float $now): \SharedState\Exception
    {
        if ($this->key->isToken) {
            return new NoSource("there is no usable {$this->key->noun()} and nothing to make one with: pass a callable as \$mint");
        }
        Rates::refuseSources();
        if ($old !== null) {
            $age = (int) ($now - $old->mintedAt);
            return new RateUnavailable("there is no rate sheet that may be served, the last good one was confirmed $age s ago: "
                . "nothing to renew it with: pass a callable as \$fetch (option 'fetch')");
        }
        return new NoSource("there is no usable {$this->key->noun()} and nothing to make one with: pass a callable as {$this->key->callable()}");
    }
}
