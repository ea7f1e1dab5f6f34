<?php

declare(strict_types=1);

use SharedState\Tests\Support\TestCase;

/** fx_convert and fx_quote: amounts, exact and rounded once. */
final class FxConvertTest extends TestCase
{
    private const FETCH = <<<'PHP'
        define('AS_OF', time() - 600);
        $calls = 0;
        $fetch = function () use (&$calls) {
            $calls++;
            return ['base' => 'EUR', 'timestamp' => AS_OF, 'rates' => [
                'USD' => '1.1172', 'GBP' => 0.8338, 'JPY' => 175.68, 'BHD' => '0.42', 'CLF' => '0.0357', 'XAU' => '0.00031', 'BTC' => 1.5e-5,
            ]];
        };
        $o = ['fetch' => $fetch];
        PHP;

    public function test_the_scale_is_that_of_the_currency(): void
    {
        $said = $this->php(self::FETCH . <<<'PHP'
            $said = [$calls];
            foreach (['USD', 'JPY', 'BHD', 'CLF', 'EUR'] as $to) { $said[] = fx_convert('1000', 'EUR', $to, null, $o); }
            return [...$said, fx_convert('1000', 'USD', 'GBP'), $calls];
            PHP);
        self::assertSame([0, '1117.20', '175680', '420.000', '35.7000', '1000.00', '746.33', 1], $said);
    }

    public function test_a_scale_that_is_given_is_used(): void
    {
        $said = $this->php(self::FETCH . <<<'PHP'
            return [
                fx_convert('19.99', 'EUR', 'USD', 0, $o), fx_convert('19.99', 'EUR', 'USD', 4), fx_convert('19.99', 'EUR', 'JPY', 5),
                fx_convert('1', 'EUR', 'BTC', 8), fx_convert('2', 'EUR', 'XAU', scale: 5), fx_convert('1', 'EUR', 'EUR', 28),
            ];
            PHP);
        self::assertSame(['22', '22.3328', '3511.84320', '0.00001500', '0.00062', '1.' . str_repeat('0', 28)], $said);
    }

    public function test_twenty_digits_before_and_behind_the_point_are_exact(): void
    {
        $said = $this->php(self::FETCH . <<<'PHP'
            return [
                fx_convert('12345678901234567890.12345678901234567891', 'GBP', 'USD', 20, $o),
                fx_convert('-99999999999999999999.99', 'EUR', 'EUR'),
                fx_convert('99999999999999999999', 'USD', 'GBP'),
            ];
            PHP);
        // Python: Fraction(amount) * Fraction(to) / Fraction(from)
        self::assertSame(['16541847527535691109.19396249062676012530', '-99999999999999999999.99', '74633011099176512709.60'], $said);
    }

    public static function ties(): array
    {
        return [
            ['0.125', '0.12', '0.13'], ['0.375', '0.38', '0.38'], ['-0.125', '-0.12', '-0.13'], ['0.1250000001', '0.13', '0.13'],
            ['-0.005', '0.00', '-0.01'], ['-0.004', '0.00', '0.00'], ['-0', '0.00', '0.00'], ['+1.005', '1.00', '1.01'],
        ];
    }

    /** @dataProvider ties */
    public function test_a_tie_goes_to_the_even_neighbour_or_away_from_zero(string $amount, string $even, string $up): void
    {
        $said = $this->php("return [fx_convert('$amount', 'EUR', 'EUR'), fx_convert('$amount', 'EUR', 'EUR', 2, ['rounding' => 'half_even']), "
            . "fx_convert('$amount', 'EUR', 'EUR', null, ['rounding' => 'half_up']), fx_quote('$amount', 'EUR', 'EUR', ['rounding' => 'half_up'])['amount']];");
        self::assertSame([$even, $even, $up, $up], $said);
    }

    public function test_ten_times_a_third_that_no_decimal_holds_is_exact(): void
    {
        $said = $this->php(<<<'PHP'
            $o = ['fetch' => fn () => ['base' => 'EUR', 'rates' => ['USD' => 3]]];
            return [fx_convert('30', 'USD', 'EUR', 28, $o), fx_convert('0.015', 'USD', 'EUR'), fx_convert('0.015', 'USD', 'EUR', 2, ['rounding' => 'half_up'])];
            PHP);
        self::assertSame(['10.' . str_repeat('0', 28), '0.00', '0.01'], $said, 'a rounded cross rate would make less of each');
    }

    public function test_random_amounts_and_rates_agree_with_bcmath(): void
    {
        $seed = random_int(0, PHP_INT_MAX);
        mt_srand($seed);
        $digits = static fn (int $count): string => implode('', array_map(static fn (): int => mt_rand(0, 9), range(1, $count)));
        $rate = static fn (): string => mt_rand(0, 9999) . '.' . $digits(mt_rand(1, 8)) . mt_rand(1, 9);
        [$cases, $wanted] = [[], []];
        for ($i = 0; $i < 500; $i++) {
            $amount = ['', '-', '+'][mt_rand(0, 2)] . $digits(mt_rand(1, 20)) . (mt_rand(0, 3) ? '.' . $digits(mt_rand(1, 20)) : '');
            [$from, $to, $scale, $rounding] = [$rate(), $rate(), mt_rand(0, 20), ['half_even', 'half_up'][mt_rand(0, 1)]];
            if ($i % 3 === 0) {
                // A tie, for chance makes none: the amount has one decimal more, a 5, and the rates are equal.
                [$amount, $from] = [$digits(mt_rand(1, 15)) . '.' . $digits($scale = mt_rand(1, 15)) . '5', $to];
            }
            $cases[] = [$amount, $scale, $rounding, ['base' => 'EUR', 'rates' => ['USD' => $from, 'GBP' => $to]]];
            $wanted[] = self::byBcmath($amount, $from, $to, $scale, $rounding);
        }
        $said = $this->php('$said = []; foreach (' . var_export($cases, true) . <<<'PHP'
             as $i => [$amount, $scale, $rounding, $sheet]) {
                $o = ['sheet' => "s$i", 'rounding' => $rounding, 'fetch' => fn () => $sheet];
                $said[] = fx_convert($amount, 'USD', 'GBP', $scale, $o);
            }
            return $said;
            PHP);
        foreach ($wanted as $i => $result) {
            self::assertSame($result, $said[$i], "seed $seed: " . json_encode($cases[$i]));
        }
    }

    /** |amount| × to ÷ from in whole units of the last decimal, and what is left over compared with half of one. */
    private static function byBcmath(string $amount, string $from, string $to, int $scale, string $rounding): string
    {
        $raised = bcmul(bcmul(ltrim($amount, '+-'), $to, 40), bcpow('10', (string) $scale), 40);
        $units = bcdiv($raised, $from, 0);
        $half = bccomp(bcmul('2', bcsub($raised, bcmul($units, $from, 40), 40), 40), $from, 40);
        if ($half > 0 || ($half === 0 && ($rounding === 'half_up' || (int) substr($units, -1) % 2 === 1))) {
            $units = bcadd($units, '1', 0);
        }
        return ($amount[0] === '-' && $units !== '0' ? '-' : '') . bcdiv($units, bcpow('10', (string) $scale), $scale);
    }

    public static function malformedAmounts(): array
    {
        return array_map(static fn (string $text): array => [$text], [
            '', '-', '.', '.5', '5.', '1e3', '1E-3', '1,5', '1 000', '1_000', ' 1', "1\n", "1\0", '--1', '1.2.3', '0x1F', 'NAN', 'INF', 'ten', '€1', "\xff",
        ]);
    }

    /** @dataProvider malformedAmounts */
    public function test_a_malformed_amount_is_a_value_error_that_says_what_is_expected(string $amount): void
    {
        $code = var_export($amount, true);
        foreach ($this->php(self::FETCH . "return [caught(fn () => fx_convert($code, 'EUR', 'USD', 2, \$o)), caught(fn () => fx_quote($code, 'EUR', 'EUR', \$o)), \$calls];") as $caught) {
            if ($caught !== 0) {
                self::assertSame('ValueError', $caught['class'] ?? null, json_encode($caught));
                self::assertStringContainsString('Argument #1 ($amount)', $caught['message']);
                self::assertStringContainsString('such as -1234.50', $caught['message']);
            }
        }
    }

    public function test_more_than_forty_digits_are_refused(): void
    {
        $said = $this->php(<<<'PHP'
            return [fx_convert(str_repeat('9', 40), 'EUR', 'EUR', 0), caught(fn () => fx_convert(str_repeat('9', 41), 'EUR', 'EUR', 0))];
            PHP);
        self::assertSame(str_repeat('9', 40), $said[0]);
        self::assertSame('ValueError', $said[1]['class'] ?? null);
        self::assertStringContainsString('at most 40', $said[1]['message']);
    }

    public function test_a_currency_without_minor_unit_needs_a_scale(): void
    {
        $said = $this->php(self::FETCH . <<<'PHP'
            $said = [];
            foreach (['XAU', 'BTC', 'HRK', 'BGN', 'ZWL'] as $to) {
                $said[] = caught(fn () => fx_convert('1', 'EUR', $to, null, $o));
                $said[] = caught(fn () => fx_convert('1', $to, $to));
                $said[] = caught(fn () => fx_quote('1', 'EUR', $to, $o));
            }
            return [$said, $calls, fx_convert('0.01', 'XAU', 'EUR', null, $o)];
            PHP);
        foreach ($said[0] as $caught) {
            self::assertSame('ValueError', $caught['class'] ?? null, json_encode($caught));
            self::assertStringContainsString('pass $scale', $caught['message']);
        }
        self::assertSame([0, '32.26'], [$said[1], $said[2]]);
    }

    public function test_a_scale_below_zero_or_beyond_28_is_a_value_error(): void
    {
        foreach ([-1, 29, PHP_INT_MIN, PHP_INT_MAX] as $scale) {
            $caught = $this->php("return caught(fn () => fx_convert('1', 'EUR', 'EUR', " . var_export($scale, true) . '));');
            self::assertSame('ValueError', $caught['class'] ?? null, json_encode($caught));
            self::assertStringContainsString('Argument #4 ($scale)', $caught['message']);
            self::assertStringContainsString('between 0 and 28', $caught['message']);
        }
    }

    public function test_a_malformed_code_is_a_value_error_at_its_place(): void
    {
        $said = $this->php(self::FETCH . <<<'PHP'
            return [
                caught(fn () => fx_convert('1', 'eur', 'USD', null, $o)), caught(fn () => fx_convert('1', 'EUR', 'US', null, $o)),
                caught(fn () => fx_quote('1', 'EURO', 'USD', $o)), caught(fn () => fx_quote('1', 'EUR', '', $o)), $calls,
            ];
            PHP);
        self::assertSame(0, array_pop($said));
        foreach ($said as $i => $caught) {
            self::assertSame('ValueError', $caught['class'] ?? null, json_encode($caught));
            self::assertStringContainsString($i % 2 ? 'Argument #3 ($to)' : 'Argument #2 ($from)', $caught['message']);
        }
    }

    public function test_an_absent_currency_is_unavailable(): void
    {
        $said = $this->php(self::FETCH . "return [caught(fn () => fx_convert('1', 'EUR', 'CHF', null, \$o)), caught(fn () => fx_quote('1', 'CHF', 'EUR', \$o))];");
        foreach ($said as $caught) {
            self::assertSame('SharedState\\RateUnavailable', $caught['class'] ?? null, json_encode($caught));
            self::assertStringContainsString('CHF', $caught['message']);
        }
    }

    public function test_a_currency_in_itself_needs_no_sheet(): void
    {
        $said = $this->php("return [fx_convert('1.005', 'EUR', 'EUR'), fx_quote('2', 'JPY', 'JPY')];");
        self::assertSame(['1.00', ['amount' => '2', 'rate' => '1', 'as_of' => null, 'version' => 0, 'source' => 'none', 'stale' => false]], $said);
    }

    public function test_a_quote_has_all_of_one_sheet(): void
    {
        $said = $this->php(self::FETCH . <<<'PHP'
            return [fx_quote('19.99', 'USD', 'GBP', $o), AS_OF, fx_quote('1', 'EUR', 'USD'), fx_rate_info('EUR', 'USD')['version'], $calls,
                fx_quote('1', 'EUR', 'USD', ['sheet' => 'undated', 'fetch' => fn () => ['base' => 'EUR', 'rates' => ['USD' => 2]]])];
            PHP);
        [$quote, $asOf, $base, $version, $calls, $undated] = $said;
        self::assertSame(['amount', 'rate', 'as_of', 'version', 'source', 'stale'], array_keys($quote));
        self::assertSame(['14.92', '0.7463301109917651271034729681', $asOf, 'callable', false],
            [$quote['amount'], $quote['rate'], $quote['as_of'], $quote['source'], $quote['stale']]);
        self::assertSame(['1.12', '1.1172', $quote['version']], [$base['amount'], $base['rate'], $base['version']]);
        self::assertSame([$quote['version'], 1], [$version, $calls]);
        self::assertGreaterThan(0, $version);
        self::assertNull($undated['as_of']);
        self::assertNotSame($version, $undated['version']);
    }

    public function test_amounts_are_strings_as_php_makes_them(): void
    {
        $said = $this->php(<<<'PHP'
            return [fx_convert(5, 'EUR', 'EUR'), fx_convert(19.99, 'EUR', 'EUR'), caught(fn () => fx_convert(1e30, 'EUR', 'EUR')),
                caught(fn () => fx_convert([], 'EUR', 'EUR')), caught(fn () => fx_convert('1', 'EUR')), caught(fn () => fx_convert('1', 'EUR', 'EUR', 'two'))];
            PHP);
        self::assertSame(['5.00', '19.99', 'ValueError', 'TypeError', 'ArgumentCountError', 'TypeError'],
            [$said[0], $said[1], ...array_column(array_slice($said, 2), 'class')]);
    }
}
