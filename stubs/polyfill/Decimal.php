<?php

declare(strict_types=1);

namespace SharedState\Polyfill;

use Brick\Math\BigDecimal;
use Brick\Math\BigInteger;

/**
 * A positive number of at most 96 bits and 28 decimals, as the extension keeps a rate: $unscaled × 10^−$scale.
 * Of brick/math only what has been the same since 0.10 is used; its rounding modes have not.
 */
final class Decimal
{
    private const MAX_SCALE = 28;

    public function __construct(public readonly BigInteger $unscaled, public readonly int $scale)
    {
    }

    public static function one(): self
    {
        return new self(BigInteger::of(1), 0);
    }

    /** Null unless it is above zero and can be kept without rounding. */
    public static function parse(string $text): ?self
    {
        if (preg_match('/^\d+(?:\.\d+)?(?:e[+-]?\d{1,3})?$/iD', $text) !== 1) {
            return null;
        }
        $number = BigDecimal::of($text);
        $fits = $number->getScale() <= self::MAX_SCALE && self::fits($number->getUnscaledValue());
        return $fits && !$number->isZero() ? new self($number->getUnscaledValue(), $number->getScale()) : null;
    }

    /** The shortest text that reads back as this number, whatever the ini setting `serialize_precision` says. */
    public static function shortest(float $number): string
    {
        if (!is_finite($number)) {
            return is_nan($number) ? 'NaN' : ($number < 0 ? '-inf' : 'inf');
        }
        $digits = 14;
        do {
            $text = sprintf("%.{$digits}e", $number);
        } while ((float) $text !== $number && $digits++ < 17);
        $plain = rtrim(rtrim((string) BigDecimal::of($text), '0'), '.');
        $plain = str_contains((string) BigDecimal::of($text), '.') ? $plain : (string) BigDecimal::of($text);
        return str_contains($plain, '.') ? $plain : "$plain.0";
    }

    /** This ÷ $by with as many digits as can be kept, and no zeros at the end that it did not have; null where none is left. */
    public function dividedBy(self $by): ?self
    {
        [$units, $left] = $this->unscaled->quotientAndRemainder($by->unscaled);
        if ($left->isZero() && $this->scale >= $by->scale) {
            return new self($units, $this->scale - $by->scale);
        }
        $scale = self::MAX_SCALE;
        do {
            $power = BigInteger::of(10)->power(abs($scale + $by->scale - $this->scale));
            $up = $scale + $by->scale >= $this->scale;
            $units = self::divided(
                $up ? $this->unscaled->multipliedBy($power) : $this->unscaled,
                $up ? $by->unscaled : $by->unscaled->multipliedBy($power),
                false,
            );
        } while (!self::fits($units) && --$scale >= 0);
        if ($scale < 0 || $units->isZero()) {
            return null;
        }
        $digits = (string) $units;
        $zeros = min($scale, \strlen($digits) - \strlen(rtrim($digits, '0')));
        return new self(BigInteger::of(substr($digits, 0, \strlen($digits) - $zeros)), $scale - $zeros);
    }

    /** Rounded to a whole number: a tie to the even neighbour, or up. Neither is negative. */
    public static function divided(BigInteger $above, BigInteger $below, bool $halfUp): BigInteger
    {
        [$units, $left] = $above->quotientAndRemainder($below);
        $half = $left->multipliedBy(2)->compareTo($below);
        $up = $half > 0 || ($half === 0 && ($halfUp || (int) substr((string) $units, -1) % 2 === 1));
        return $up ? $units->plus(1) : $units;
    }

    /** $units × 10^−$scale, with one digit before the point at the least. */
    public static function text(BigInteger $units, int $scale): string
    {
        $digits = str_pad((string) $units, $scale + 1, '0', STR_PAD_LEFT);
        return $scale === 0 ? $digits : substr_replace($digits, '.', -$scale, 0);
    }

    public function __toString(): string
    {
        return self::text($this->unscaled, $this->scale);
    }

    public function toFloat(): float
    {
        return (float) (string) $this;
    }

    private static function fits(BigInteger $units): bool
    {
        return $units->compareTo(BigInteger::of('79228162514264337593543950335')) <= 0;
    }
}
