<?php

declare(strict_types=1);

use SharedState\Tests\Support\TestCase;

final class FxRateTest extends TestCase
{
    private const FETCH = <<<'PHP'
        $calls = 0;
        $fetch = function () use (&$calls) {
            $calls++;
            return ['base' => 'EUR', 'rates' => ['USD' => '1.10', 'GBP' => 0.88, 'JPY' => '160'], 'timestamp' => time()];
        };
        PHP;

    public function test_one_fetch_answers_every_pair(): void
    {
        $said = $this->php(self::FETCH . <<<'PHP'
            return [fx_rate('EUR', 'USD', $fetch), fx_rate('USD', 'EUR', $fetch), fx_rate('GBP', 'USD', $fetch), fx_rate('JPY', 'GBP', $fetch), $calls];
            PHP);
        self::assertEqualsWithDelta(1.10, $said[0], 1e-12);
        self::assertEqualsWithDelta(1 / 1.10, $said[1], 1e-9);
        self::assertEqualsWithDelta(1.25, $said[2], 1e-9, 'cross rate: 1.10 / 0.88');
        self::assertEqualsWithDelta(0.88 / 160, $said[3], 1e-9);
        self::assertSame(1, $said[4]);
    }

    /** @group extension */
    public function test_another_process_reads_the_same_sheet(): void
    {
        $this->php(self::FETCH . "return fx_rate('EUR', 'USD', \$fetch);");
        self::assertEqualsWithDelta(1.25, $this->php("return fx_rate('GBP', 'USD');"), 1e-9);
    }

    public function test_a_currency_against_itself_is_one_without_a_fetch(): void
    {
        $said = $this->php(self::FETCH . "return [fx_rate('EUR', 'EUR', \$fetch), fx_rate('CHF', 'CHF'), \$calls];");
        self::assertEquals([1.0, 1.0, 0], $said);
    }

    public static function malformed(): array
    {
        return [['euro'], ['EU'], ['EURO'], [''], ['E R'], ["EU\0"], ['123'], ['€UR']];
    }

    /** @dataProvider malformed */
    public function test_a_malformed_code_is_a_value_error(string $code): void
    {
        $said = $this->php(self::FETCH . sprintf("return [caught(fn () => fx_rate(%s, 'USD', \$fetch)), \$calls];", var_export($code, true)));
        self::assertSame('ValueError', $said[0]['class'] ?? null, json_encode($said[0]));
        self::assertSame(0, $said[1]);
    }

    public function test_a_well_formed_absent_currency_is_unavailable(): void
    {
        $said = $this->php(self::FETCH . "return caught(fn () => fx_rate('EUR', 'CHF', \$fetch));");
        self::assertSame('SharedState\\RateUnavailable', $said['class'] ?? null, json_encode($said));
        self::assertStringContainsString('CHF', $said['message']);
    }

    public function test_no_sheet_and_no_callable_is_no_source(): void
    {
        $said = $this->php("return caught(fn () => fx_rate('EUR', 'USD'));");
        self::assertSame('SharedState\\NoSource', $said['class'] ?? null, json_encode($said));
    }

    public function test_a_second_sheet_is_kept_beside_the_first(): void
    {
        $said = $this->php(self::FETCH . <<<'PHP'
            $other = fn () => ['base' => 'EUR', 'rates' => ['USD' => '2.00']];
            return [fx_rate('EUR', 'USD', $fetch), fx_rate('EUR', 'USD', $other, ['sheet' => 'other']), fx_rate('EUR', 'USD')];
            PHP);
        self::assertEqualsWithDelta([1.10, 2.00, 1.10], $said, 1e-12);
    }

    public static function nonsense(): array
    {
        return [
            'zero' => ["['USD' => 0]"], 'negative' => ["['USD' => -1.1]"], 'NaN' => ["['USD' => NAN]"], 'infinite' => ["['USD' => INF]"],
            'words' => ["['USD' => 'many']"], 'nothing' => ['[]'], 'a list' => ['[1.1]'], 'not an array' => ["'USD'"],
        ];
    }

    /** @dataProvider nonsense */
    public function test_a_sheet_that_makes_no_sense_is_refused_whole(string $rates): void
    {
        $said = $this->php("return caught(fn () => fx_rate('EUR', 'USD', fn () => ['base' => 'EUR', 'rates' => $rates]));");
        self::assertSame('SharedState\\InvalidValue', $said['class'] ?? null, json_encode($said));
    }

    public function test_the_exact_decimals_of_a_rate_survive(): void
    {
        $said = $this->php("return fx_rate('EUR', 'USD', fn () => ['base' => 'EUR', 'rates' => ['USD' => '1.0876543210987']]) === 1.0876543210987;");
        self::assertTrue($said);
    }

    public function test_the_ecbs_document_is_a_sheet(): void
    {
        $said = $this->php(<<<'PHP'
            $xml = '<?xml version="1.0" encoding="UTF-8"?><gesmes:Envelope xmlns:gesmes="http://www.gesmes.org/xml/2002-08-01" '
                . 'xmlns="http://www.ecb.int/vocabulary/2002-08-01/eurofxref"><Cube><Cube time="' . gmdate('Y-m-d') . '">'
                . '<Cube currency="USD" rate="1.0876"/><Cube currency="JPY" rate="161.23"/></Cube></Cube></gesmes:Envelope>';
            return [fx_rate('EUR', 'USD', fn () => $xml), fx_rate_info('EUR', 'USD')['as_of'], gmmktime(14, 15, 0)];
            PHP);
        self::assertSame(1.0876, $said[0]);
        self::assertSame($said[2], $said[1], 'a date means 14:15 UTC');
    }

    public function test_a_callables_sheet_that_jumps_is_held_back_and_the_old_one_served(): void
    {
        $said = $this->php(<<<'PHP'
            $sheet = fn (float $usd, int $ago) => fn () => ['base' => 'EUR', 'timestamp' => time() - $ago, 'rates' => ['USD' => $usd]];
            $first = fx_refresh($sheet(1.1, 50));
            usleep(600_000);
            $jump = fx_refresh($sheet(1.6, 40));
            $held = fx_rate('EUR', 'USD');
            usleep(600_000);
            $again = fx_refresh($sheet(1.61, 30));
            return [$first['reason'], $jump['reason'], $jump['refreshed'], $held, $again['reason'], fx_rate('EUR', 'USD')];
            PHP, ['fx.refresh_interval_s' => 1]);
        self::assertSame(['due', 'quarantined', false, 1.1, 'due', 1.61], $said);
    }

    public function test_a_refresh_without_any_source_is_no_source(): void
    {
        $said = $this->php('return caught(fn () => fx_refresh());');
        self::assertSame('SharedState\\NoSource', $said['class'] ?? null, json_encode($said));
        self::assertStringContainsString('sharedstate.fx.sources', $said['message']);
    }

    public function test_a_first_refresh_that_fails_is_a_failed_mint(): void
    {
        $said = $this->php("return caught(fn () => fx_refresh(fn () => throw new RuntimeException('down')));");
        self::assertSame(['SharedState\\MintFailed', 'RuntimeException'], [$said['class'] ?? null, $said['previous'] ?? null], json_encode($said));
    }

    /** @group extension */
    public function test_a_source_that_is_dead_has_failed_and_then_there_is_a_pause(): void
    {
        $said = $this->php("return [fx_refresh()['reason'], fx_refresh()['reason'], caught(fn () => fx_rate('EUR', 'USD'))];", ['fx.sources' => 'json:http://127.0.0.1:1/x']);
        self::assertSame(['failed', 'backoff', 'SharedState\\RateUnavailable'], [$said[0], $said[1], $said[2]['class'] ?? null], json_encode($said));
    }

    public function test_a_folder_that_is_none_is_refused(): void
    {
        $said = $this->php("return caught(fn () => fx_rate('EUR', 'USD'));", ['fx.state_dir' => '/nowhere/at/all']);
        self::assertSame('SharedState\\ConfigError', $said['class'] ?? null, json_encode($said));
        self::assertStringContainsString('sharedstate.fx.state_dir is "/nowhere/at/all"', $said['message']);
    }

    public function test_a_refresh_that_fails_says_so_and_leaves_the_sheet(): void
    {
        $said = $this->php(self::FETCH . <<<'PHP'
            fx_refresh($fetch);
            usleep(600_000);
            $failed = fx_refresh(fn () => throw new RuntimeException('the provider is down'));
            return [$failed['refreshed'], $failed['reason'], fx_refresh($fetch)['reason'], fx_rate('EUR', 'USD'), $failed['source']];
            PHP, ['fx.refresh_interval_s' => 1]);
        self::assertSame([false, 'failed', 'backoff', 1.1, 'callable'], $said);
    }

    /** @group extension */
    public function test_what_a_callable_throws_is_not_heard_where_the_state_folder_has_a_sheet(): void
    {
        mkdir($shelf = "$this->folder/shelf");
        $ask = function (string $host, string $mint) use ($shelf): mixed {
            @mkdir("$this->folder/$host");
            return $this->php("\$rate = fx_rate('EUR', 'USD', function () { $mint }); usleep(300_000); return \$rate;",
                ['fx.state_dir' => $shelf, 'host.dir' => "$this->folder/$host"]);
        };
        self::assertSame(1.1, $ask('first', "return ['base' => 'EUR', 'timestamp' => time(), 'rates' => ['USD' => '1.1']];"));
        $this->until('the sheet is in the folder', fn (): bool => glob("$shelf/*") !== []);
        self::assertSame(1.1, $ask('second', "throw new RuntimeException('the provider is down');"));
        self::assertSame(1.1, $ask('third', "return 'junk';"));
    }
}
