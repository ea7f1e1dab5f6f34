<?php

declare(strict_types=1);

namespace SharedState\Polyfill;

use SharedState\RateUnavailable;

/**
 * All rates of one source at one time. One that exists is sound: its rates are positive, exact, and contain its
 * base at 1. Rates are text, so that nobody makes floats of them.
 */
final class Sheet
{
    public const SOURCE = 'callable';

    private const WANTED = 'it must return a sheet as an array or JSON string: base, rates, and timestamp if known';
    private const NO_OBJECT = 'the sheet is not a JSON object, expected {base, rates, timestamp?}';
    private const READ = ['base', 'rates', 'timestamp', 'date', 'success', 'amount', 'error'];
    /** An as-of beyond this (the year 5138) is in milliseconds. */
    private const LAST_SECOND = 100_000_000_000;

    /** @param array<string, string> $rates by code, in its order */
    private function __construct(public readonly string $base, public readonly ?int $asOf, public readonly array $rates)
    {
    }

    /** In the Open Exchange Rates shape, or the ECB's document. @throws Unusable */
    public static function read(mixed $answer): self
    {
        if (\is_array($answer)) {
            if (array_is_list($answer)) {
                throw new Unusable(self::NO_OBJECT);
            }
            [$fields, $unread] = Plain::fields($answer);
            foreach (array_intersect_key($unread, array_flip(self::READ)) as $name => $what) {
                throw new Unusable("\"$name\" is $what");
            }
            return self::ofFields($fields);
        }
        if (!\is_string($answer)) {
            $hint = $answer instanceof \stdClass ? ' (json_decode($text, true) makes an array)' : '';
            $what = \is_object($answer) ? 'an object of class ' . strtok($answer::class, "\0") . $hint : get_debug_type($answer);
            throw new Unusable("the callable returned $what; " . self::WANTED);
        }
        $text = str_starts_with($answer, "\xef\xbb\xbf") ? substr($answer, 3) : $answer;
        return str_starts_with(ltrim($text), '<') ? EcbDocument::read($text) : self::ofJson($text);
    }

    /**
     * @param iterable<array{string, string}> $given code and rate, as the source spells them
     * @throws Unusable
     */
    public static function build(string $base, ?int $asOf, iterable $given): self
    {
        if (!Currency::isCode($base)) {
            throw new Unusable('the sheet\'s "base": ' . Currency::why($base));
        }
        if ($asOf !== null && ($asOf < 1 || $asOf >= self::LAST_SECOND)) {
            throw new Unusable('the sheet\'s "timestamp" is not in seconds since 1970');
        }
        $rates = [];
        foreach ($given as [$code, $text]) {
            if (!Currency::isCode($code)) {
                throw new Unusable("the sheet's rates: " . Currency::why($code));
            }
            $rate = Decimal::parse($text) ?? throw new Unusable("the sheet's rate of $code is " . Text::quoted($text)
                . ', expected a decimal number above zero with at most 28 digits');
            if (isset($rates[$code])) {
                throw new Unusable("the sheet has more than one rate of $code");
            }
            $rates[$code] = (string) $rate;
        }
        if (isset($rates[$base]) && preg_match('/^0*1(\.0*)?$/D', $rates[$base]) !== 1) {
            throw new Unusable("the sheet's rate of its own base $base is $rates[$base], expected 1");
        }
        $rates[$base] = '1';
        ksort($rates);
        return \count($rates) > 1 ? new self($base, $asOf, $rates)
            : throw new Unusable("the sheet has no rate besides its base $base, expected one or more");
    }

    /** A day, which means 14:15 UTC: the ECB names no time, and publishes in the afternoon. */
    public static function asOfDay(string $day): ?int
    {
        $isDay = preg_match('/^(\d{4})-(\d\d)-(\d\d)$/D', $day, $part) === 1 && checkdate((int) $part[2], (int) $part[3], (int) $part[1]);
        return $isDay ? (int) gmmktime(14, 15, 0, (int) $part[2], (int) $part[3], (int) $part[1]) : null;
    }

    /** @throws RateUnavailable for a currency that is not in the sheet */
    public function rate(string $code): Decimal
    {
        $text = $this->rates[$code] ?? throw new RateUnavailable("there is no rate for $code in the sheet of " . self::SOURCE
            . " (base $this->base, " . \count($this->rates) . ' currencies): use a source that has it');
        return Decimal::parse($text) ?? Decimal::one();
    }

    /** How many $to one $from buys; exact when $from is the base. @throws RateUnavailable */
    public function cross(string $from, string $to): Decimal
    {
        $rate = $this->rate($to)->dividedBy($this->rate($from));
        return $rate ?? throw new RateUnavailable("the rate from $from to $to does not fit 28 digits: convert by way of $this->base");
    }

    /**
     * @return array<string, string>
     * @throws RateUnavailable
     */
    public function rebased(string $base): array
    {
        $this->rate($base);
        $rates = [];
        foreach ($this->rates as $code => $_) {
            $rates[$code] = $code === $base ? '1' : (string) $this->cross($base, $code);
        }
        return $rates;
    }

    /** Every number as text before PHP makes a float of it. */
    private static function ofJson(string $text): self
    {
        $isObject = str_starts_with(ltrim($text), '{') && json_decode($text) !== null;
        $texts = $isObject ? preg_replace('/"(?:[^"\\\\]|\\\\.)*+"(*SKIP)(*FAIL)|-?\d[\d.eE+-]*/s', '"$0"', $text) : null;
        $fields = $texts === null ? null : json_decode($texts, true);
        // A name that stands twice is lost in an array.
        preg_match_all('/"([A-Z]{3})"\s*:/', $text, $codes);
        foreach (array_diff_key($codes[1], array_unique($codes[1])) as $code) {
            throw new Unusable("the sheet has more than one rate of $code");
        }
        return \is_array($fields) ? self::ofFields($fields) : throw new Unusable(self::NO_OBJECT);
    }

    /** @param array<array-key, mixed> $fields */
    private static function ofFields(array $fields): self
    {
        $failed = ($fields['success'] ?? null) === false;
        if ($failed || !isset($fields['rates'])) {
            $words = Fault::of($fields);
            if ($words !== null) {
                throw new Unusable("the provider's answer is an error, $words");
            }
        }
        if ($failed) {
            throw new Unusable('the provider\'s answer says "success": false');
        }
        $amount = isset($fields['amount']) ? self::text($fields['amount']) : '1';
        if (preg_match('/^1(\.0*)?$/D', $amount) !== 1) {
            throw new Unusable('the sheet\'s rates are for an "amount" of ' . Text::quoted($amount) . ', expected for 1: ask without an amount');
        }
        $base = $fields['base'] ?? null;
        if ($base === null) {
            $names = implode(', ', array_map(static fn ($name) => Text::quoted((string) $name), \array_slice(array_keys($fields), 0, 4)));
            throw new Unusable('the sheet has no "base", expected its currency; it has ' . ($names ?: 'nothing'));
        }
        $rates = $fields['rates'] ?? throw new Unusable('the sheet has no "rates"');
        if (!\is_array($rates) || array_is_list($rates)) {
            throw new Unusable('the sheet\'s "rates" are no map, expected a number for each currency');
        }
        $asOf = null;
        if (isset($fields['timestamp'])) {
            $text = self::text($fields['timestamp']);
            $asOf = preg_match('/^[+-]?\d{1,18}$/D', $text) === 1 ? (int) $text
                : throw new Unusable('the sheet\'s "timestamp" is ' . Text::quoted($text) . ', expected whole seconds');
        } elseif (isset($fields['date'])) {
            $text = self::text($fields['date']);
            $asOf = self::asOfDay($text) ?? throw new Unusable('the sheet\'s "date" is ' . Text::quoted($text) . ', expected as in 2026-11-24');
        }
        $pairs = [];
        // Null is how some say that they have none.
        foreach (array_filter($rates, static fn (mixed $rate): bool => $rate !== null) as $code => $rate) {
            $pairs[] = [(string) $code, self::text($rate)];
        }
        return self::build(self::text($base), $asOf, $pairs);
    }

    private static function text(mixed $value): string
    {
        return match (true) {
            \is_float($value) => Decimal::shortest($value),
            \is_string($value), \is_int($value) => (string) $value,
            default => (string) json_encode($value),
        };
    }
}
