<?php

declare(strict_types=1);

namespace SharedState\Polyfill;

use SharedState\ConfigError;
use SharedState\InvalidValue;
use SharedState\MintFailed;
use SharedState\NoSource;
use SharedState\RateUnavailable;
use SharedState\WaitTimeout;

/** The fx functions. Every answer is of one sheet, never of two. */
final class Rates
{
    /** @param array<array-key, mixed> $options */
    public static function rate(string $from, string $to, ?callable $fetch, array $options): float
    {
        [$from, $to] = [Currency::checked($from, 1), Currency::checked($to, 2)];
        $asked = new FxOptions($options, 4, $fetch);
        return $from === $to ? 1.0 : self::sheet($asked)[1]->cross($from, $to)->toFloat();
    }

    /** @param array<array-key, mixed> $options */
    public static function convert(string $amount, string $from, string $to, ?int $scale, array $options): string
    {
        $amount = Amount::parse($amount, 1);
        [$from, $to] = [Currency::checked($from, 2), Currency::checked($to, 3)];
        if ($scale !== null && ($scale < 0 || $scale > Amount::MAX_SCALE)) {
            throw Refusal::value(4, "cannot be used: $scale decimals are not between 0 and " . Amount::MAX_SCALE);
        }
        $scale ??= Currency::decimals($to) ?? throw Refusal::value(4, "must not be null: ISO 4217 has no number of decimals for $to among the currencies in force; pass \$scale");
        $asked = new FxOptions($options, 5);
        return self::converted($amount, $from, $to, $scale, $asked, $from === $to ? null : self::sheet($asked)[1]);
    }

    /**
     * @param array<array-key, mixed> $options
     * @return array<string, mixed>
     */
    public static function quote(string $amount, string $from, string $to, array $options): array
    {
        $amount = Amount::parse($amount, 1);
        [$from, $to] = [Currency::checked($from, 2), Currency::checked($to, 3)];
        $scale = Currency::decimals($to)
            ?? throw Refusal::value(3, "cannot be used: ISO 4217 has no number of decimals for $to among the currencies in force; use fx_convert() and pass \$scale");
        $asked = new FxOptions($options, 4);
        [$entry, $sheet] = $from === $to ? [null, null] : self::sheet($asked);
        return [
            'amount' => self::converted($amount, $from, $to, $scale, $asked, $sheet),
            'rate' => (string) ($sheet?->cross($from, $to) ?? '1'),
            'as_of' => $sheet?->asOf,
            'version' => $entry->version ?? 0,
            'source' => $entry === null ? 'none' : Sheet::SOURCE,
            'stale' => $entry?->isStale(microtime(true)) ?? false,
        ];
    }

    /**
     * @param array<array-key, mixed> $options
     * @return array<string, string>
     */
    public static function all(?string $base, array $options): array
    {
        $base = $base === null ? null : Currency::checked($base, 1);
        [, $sheet] = self::sheet(new FxOptions($options, 2));
        return $sheet->rebased($base ?? $sheet->base);
    }

    /**
     * @param array<array-key, mixed> $options
     * @return array<string, mixed>
     */
    public static function info(string $from, string $to, array $options): array
    {
        [$from, $to] = [Currency::checked($from, 1), Currency::checked($to, 2)];
        $asked = new FxOptions($options, 3);
        [$entry, $sheet] = $from === $to ? [null, null] : self::sheet($asked);
        $now = microtime(true);
        return [
            'rate' => (string) ($sheet?->cross($from, $to) ?? '1'),
            'as_of' => $sheet?->asOf,
            'age' => $entry === null ? 0 : self::age($entry, $sheet, $now),
            'confirmed_at' => $entry === null ? null : (int) floor($entry->mintedAt),
            'stale' => $entry?->isStale($now) ?? false,
            'source' => $entry === null ? 'none' : Sheet::SOURCE,
            'version' => $entry->version ?? 0,
            'next_refresh' => $entry === null ? null : (int) floor($entry->refreshAt),
        ];
    }

    /**
     * Due from half the interval on: a job that runs once an interval, a little early or late, then renews every time.
     *
     * @param array<array-key, mixed> $options
     * @return array<string, mixed>
     */
    public static function refresh(?callable $fetch, array $options): array
    {
        $asked = new FxOptions($options, 2, $fetch);
        if ($asked->fetch === null) {
            self::refuseSources();
            throw new NoSource('there is nothing to refresh rates from: pass a callable as $fetch, or load the sharedstate extension and set '
                . 'sharedstate.fx.sources');
        }
        $half = Settings::current()->seconds('fx.refresh_interval_s') / 2;
        $flight = self::flight($asked, $half);
        try {
            $flight->run();
        } catch (MintFailed $failed) {
            // With a sheet in force a failure is one of those that happen; without, it is the caller's.
            if ($flight->ended() !== 'backoff') {
                throw $failed;
            }
        } catch (WaitTimeout) {
        }
        $now = microtime(true);
        $entry = Store::current()->read($asked->key())->known();
        $holding = $entry?->value;
        $quarantined = $holding instanceof Holding && $holding->quarantine !== null;
        $reason = match ($flight->ended()) {
            null => 'fresh',
            'made' => $quarantined ? 'quarantined' : 'due',
            'busy' => $entry !== null && $now - $entry->mintedAt < $half ? 'fresh' : 'busy',
            default => $flight->ended(),
        };
        return [
            'refreshed' => $reason === 'due',
            'reason' => $reason,
            'source' => $entry === null ? null : Sheet::SOURCE,
            'version' => $entry?->version,
            'as_of' => $holding instanceof Holding ? $holding->sheet->asOf : null,
            'next_refresh' => $entry === null ? null : (int) floor($entry->refreshAt),
        ];
    }

    /** The polyfill asks no source itself. @throws ConfigError */
    public static function refuseSources(): void
    {
        if (Settings::current()->text('fx.sources') !== '') {
            throw new ConfigError('sharedstate.fx.sources is set, but this is the PHP polyfill, which asks no source by itself: load the '
                . "sharedstate extension, or pass a callable as \$fetch (option 'fetch')");
        }
    }

    private static function converted(Amount $amount, string $from, string $to, int $scale, FxOptions $asked, ?Sheet $sheet): string
    {
        return $amount->convert($sheet?->rate($to) ?? Decimal::one(), $sheet?->rate($from) ?? Decimal::one(), $scale, $asked->halfUp);
    }

    /** @return array{Entry, Sheet} no older than is allowed */
    private static function sheet(FxOptions $asked): array
    {
        $entry = self::flight($asked, null)->run();
        $sheet = $entry->value instanceof Holding ? $entry->value->sheet : throw new InvalidValue('what is kept is no sheet');
        $age = self::age($entry, $sheet, microtime(true));
        if ($asked->maxAge !== null && $age > $asked->maxAge) {
            throw new RateUnavailable("the rates are $age seconds old, and 'max_age_s' allows $asked->maxAge");
        }
        return [$entry, $sheet];
    }

    /** In whole seconds, by the as-of, or by the confirmation where the source did not say. */
    private static function age(Entry $entry, Sheet $sheet, float $now): int
    {
        return max(0, (int) floor($now - ($sheet->asOf ?? $entry->mintedAt)));
    }

    private static function flight(FxOptions $asked, ?float $renewAtAge): Flight
    {
        $settings = Settings::current();
        $make = $asked->fetch === null ? null : \Closure::fromCallable($asked->fetch);
        $key = $asked->key();
        $read = static fn (mixed $answer, int $version, float $from): Entry => self::judged($key, Sheet::read($answer), $version, $from);
        return new Flight($key, $make, $read, microtime(true) + $settings->seconds('token.wait_timeout_ms'), null, $renewAtAge);
    }

    private static function judged(Key $key, Sheet $sheet, int $version, float $from): Entry
    {
        $settings = Settings::current();
        $held = Store::current()->read($key)->served(microtime(true));
        $holding = $held?->value instanceof Holding ? $held->value : null;
        $guard = new Guard($settings->number('fx.max_jump_pct') / 100);
        [$holding, $inForce, $why] = $guard->judge($holding, $sheet, $held?->isStale($from) ?? false, $from);
        if (!$inForce) {
            Log::warn("the callable's sheet: $why");
        }
        Tally::add($key, $inForce ? 'taken' : 'quarantined');
        // The old sheet stays, as old as it is.
        $entry = Entry::sheet($version, $holding, $inForce ? $from : (float) $held?->mintedAt, $from, $settings);
        if ($entry->expiresAt <= $from) {
            throw new Unusable("the callable's sheet is refused: by its date its rates are older than sharedstate.fx.max_age_s = "
                . $settings->text('fx.max_age_s'));
        }
        return $entry;
    }
}
