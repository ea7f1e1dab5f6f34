<?php

declare(strict_types=1);

namespace SharedState\Polyfill;

use Brick\Math\BigInteger;

/** An amount of money: decimal text in, decimal text out, exact in between and rounded once. */
final class Amount
{
    public const MAX_SCALE = 28;
    private const MAX_DIGITS = 40;

    private function __construct(private readonly bool $negative, private readonly BigInteger $digits, private readonly int $scale)
    {
    }

    /** @throws Refusal */
    public static function parse(string $text, int $position): self
    {
        if (preg_match('/^([+-]?)(\d+)(?:\.(\d+))?$/D', $text, $part) !== 1) {
            throw Refusal::value($position, 'cannot be used: ' . Text::quoted($text) . ' is not an amount, expected digits with a point '
                . 'before the decimals and no exponent, space or thousands separator, such as -1234.50');
        }
        $fraction = $part[3] ?? '';
        $count = \strlen($part[2] . $fraction);
        if ($count > self::MAX_DIGITS) {
            throw Refusal::value($position, "cannot be used: the amount has $count digits, expected at most " . self::MAX_DIGITS);
        }
        return new self($part[1] === '-', BigInteger::of($part[2] . $fraction), \strlen($fraction));
    }

    /** The amount × $to ÷ $from with exactly $scale decimals. Never by a cross rate, which is rounded already. */
    public function convert(Decimal $to, Decimal $from, int $scale, bool $halfUp): string
    {
        $above = $this->digits->multipliedBy($to->unscaled);
        $below = $from->unscaled;
        // Counted in units of the last decimal, which is what gets rounded.
        $power = $from->scale + $scale - $to->scale - $this->scale;
        $ten = BigInteger::of(10)->power(abs($power));
        [$above, $below] = $power < 0 ? [$above, $below->multipliedBy($ten)] : [$above->multipliedBy($ten), $below];
        $units = Decimal::divided($above, $below, $halfUp);
        $text = Decimal::text($units, $scale);
        return ($this->negative && !$units->isZero() ? '-' : '') . $text;
    }
}
