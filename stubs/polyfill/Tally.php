<?php

declare(strict_types=1);

namespace SharedState\Polyfill;

/**
 * What is counted: of tokens by the family of their names, of rates as a whole. A name per tenant must make no
 * time series per tenant, so there are as many places for families as the extension has; who comes later is `other`.
 */
final class Tally
{
    /** Why a mint was started, as far as this store can know. */
    public const REASONS = ['cold', 'expired', 'refresh', 'rejected'];

    private const OTHER = 'other';
    private const PLACES = 64;
    private const NAME_BYTES = 64;

    /** A name up to its first `:`. */
    public static function family(string $name): string
    {
        return substr($name, 0, min(strcspn($name, ':'), self::NAME_BYTES));
    }

    public static function add(Key $key, string $what): void
    {
        Store::current()->count($key->isToken ? "token_$what:" . self::placed(self::family($key->name)) : "fx_$what");
    }

    /** @return list<string> that have a place, and what the others are called where there are any */
    public static function families(): array
    {
        $families = [];
        while (\count($families) < self::PLACES && ($family = Store::current()->family(\count($families))) !== null) {
            $families[] = $family;
        }
        return \count($families) < self::PLACES ? $families : array_values(array_unique([...$families, self::OTHER]));
    }

    public static function ofFamily(string $family, string $what): int
    {
        return Store::current()->counted("token_$what:$family");
    }

    public static function ofTokens(string ...$what): int
    {
        $sum = 0;
        foreach (self::families() as $family) {
            $sum += array_sum(array_map(static fn (string $what): int => self::ofFamily($family, $what), $what));
        }
        return $sum;
    }

    public static function ofRates(string $what): int
    {
        return Store::current()->counted("fx_$what");
    }

    /** Mints of tokens, whatever they were started for. */
    public static function mints(): int
    {
        return self::ofTokens(...array_map(static fn (string $reason): string => "minted_$reason", self::REASONS));
    }

    /**
     * @param array<string, int> $counts by family
     * @return array<string, int> those without a place together
     */
    public static function byPlace(array $counts): array
    {
        $families = self::families();
        $placed = [];
        foreach ($counts as $family => $count) {
            $family = \in_array((string) $family, $families, true) ? (string) $family : self::OTHER;
            $placed[$family] = ($placed[$family] ?? 0) + $count;
        }
        return $placed;
    }

    private static function placed(string $family): string
    {
        for ($number = 0; $number < self::PLACES; $number++) {
            if (Store::current()->family($number, $family) === $family) {
                return $family;
            }
        }
        return self::OTHER;
    }
}
