<?php

declare(strict_types=1);

use SharedState\Tests\Support\TestCase;

/** What all fx functions have in common, and the tables of fx_rates and fx_rate_info. */
final class FxOptionsTest extends TestCase
{
    /** Every function, asked for the same pair with the options $o. */
    private const ALL = <<<'PHP'
        $all = [
            'fx_rate' => fn (array $o) => fx_rate('USD', 'GBP', null, $o),
            'fx_convert' => fn (array $o) => fx_convert('100', 'USD', 'GBP', null, $o),
            'fx_quote' => fn (array $o) => fx_quote('100', 'USD', 'GBP', $o)['amount'],
            'fx_rates' => fn (array $o) => fx_rates('USD', $o)['GBP'],
            'fx_rate_info' => fn (array $o) => fx_rate_info('USD', 'GBP', $o)['rate'],
        ];
        $each = fn (array $o) => array_map(fn ($call) => caught(fn () => $call($o)), $all);
        $sheet = fn (array $more = []) => ['base' => 'EUR', 'rates' => ['USD' => '1.25', 'GBP' => '0.80']] + $more;
        PHP;

    private const ANSWERS = ['fx_rate' => 0.64, 'fx_convert' => '64.00', 'fx_quote' => '64.00', 'fx_rates' => '0.64', 'fx_rate_info' => '0.64'];

    /** @dataProvider callables */
    public function test_each_function_fetches_by_its_option(string $fetch): void
    {
        foreach (array_keys(self::ANSWERS) as $function) {
            $said = $this->php(self::ALL . <<<PHP
                class Rates {
                    static function get() { return json_encode(['base' => 'EUR', 'rates' => ['USD' => 1.25, 'GBP' => 0.8]]); }
                    function __invoke() { return self::get(); }
                }
                return [\$all['$function'](['fetch' => $fetch, 'sheet' => '$function']), \$all['$function'](['sheet' => '$function'])];
                PHP);
            self::assertEquals([self::ANSWERS[$function], self::ANSWERS[$function]], $said, $function);
        }
    }

    public static function callables(): array
    {
        return [
            'a closure' => ['fn () => $sheet()'], 'a closure of JSON' => ['fn () => json_encode($sheet())'], 'an array' => ["['Rates', 'get']"],
            'a name' => ["'Rates::get'"], 'an object' => ['new Rates'], 'first class' => ['Rates::get(...)'],
        ];
    }

    public function test_all_functions_read_one_sheet_that_is_fetched_once(): void
    {
        $said = $this->php(self::ALL . <<<'PHP'
            $calls = 0;
            $fetch = function () use (&$calls, $sheet) { $calls++; return $sheet(); };
            return [$each(['fetch' => $fetch, 'rounding' => 'half_up', 'max_age_s' => 60]), $calls];
            PHP);
        self::assertEquals([array_map(fn ($answer) => ['returned' => $answer], self::ANSWERS), 1], $said);
    }

    public function test_another_sheet_is_another_sheet_for_all(): void
    {
        $said = $this->php(self::ALL . <<<'PHP'
            $double = fn () => ['base' => 'EUR', 'rates' => ['USD' => '1.25', 'GBP' => '1.60']];
            return [$each(['fetch' => fn () => $sheet()]), $each(['fetch' => $double, 'sheet' => 'double']), $each([])];
            PHP);
        self::assertSame($said[0], $said[2]);
        self::assertEquals(['1.28', '128.00'], [$said[1]['fx_rates']['returned'], $said[1]['fx_convert']['returned']]);
    }

    public static function badOptions(): array
    {
        return [
            'unknown' => ["['fetsh' => 1]", 'ValueError', 'the known ones are fetch, sheet, max_age_s, rounding'],
            'fetch' => ["['fetch' => 'no such function']", 'TypeError', "option 'fetch' must be a valid callback, string given"],
            'sheet' => ["['sheet' => 1]", 'TypeError', "option 'sheet' must be a string, int given"],
            'an empty sheet' => ["['sheet' => '']", 'ValueError', "option 'sheet' must not be empty"],
            'max_age_s of 0' => ["['max_age_s' => 0]", 'ValueError', "option 'max_age_s' is 0"],
            'max_age_s below 0' => ["['max_age_s' => -5]", 'ValueError', "option 'max_age_s' is -5"],
            'max_age_s of words' => ["['max_age_s' => 'old']", 'TypeError', "option 'max_age_s' must be a number"],
            'rounding' => ["['rounding' => 'up']", 'ValueError', "either 'half_even' or 'half_up'"],
            'rounding of a number' => ["['rounding' => 1]", 'TypeError', "option 'rounding' must be a string"],
        ];
    }

    /** @dataProvider badOptions */
    public function test_a_bad_option_is_refused_by_each_function(string $options, string $class, string $words): void
    {
        $places = ['fx_rate' => 4, 'fx_convert' => 5, 'fx_quote' => 4, 'fx_rates' => 2, 'fx_rate_info' => 3];
        foreach ($this->php(self::ALL . "return \$each($options);") as $function => $caught) {
            self::assertSame($class, $caught['class'] ?? null, json_encode($caught));
            self::assertStringContainsString("$function(): Argument #$places[$function] (\$options)", $caught['message']);
            self::assertStringContainsString($words, $caught['message']);
        }
    }

    public function test_the_parameter_and_the_option_may_be_the_same_callable_and_not_two(): void
    {
        $said = $this->php(self::ALL . <<<'PHP'
            $one = fn () => $sheet();
            $two = fn () => $sheet();
            return [caught(fn () => fx_rate('USD', 'GBP', $one, ['fetch' => $two])), fx_rate('USD', 'GBP', $one, ['fetch' => $one]),
                caught(fn () => fx_rate('USD', 'GBP', $one, ['fetch' => $two])), fx_rate('USD', 'GBP', null, ['fetch' => $two]),
                fx_rate('USD', 'GBP', $one, ['fetch' => null])];
            PHP);
        foreach ([0, 2] as $i) {
            self::assertSame('ValueError', $said[$i]['class'] ?? null, json_encode($said[$i]));
            self::assertStringContainsString('another callable', $said[$i]['message']);
        }
        self::assertEquals([0.64, 0.64, 0.64], [$said[1], $said[3], $said[4]]);
    }

    public function test_an_autoloader_that_changes_an_option_changes_it_before_it_is_read(): void
    {
        $said = $this->php(<<<'PHP'
            $name = str_repeat('a', 20);
            spl_autoload_register(function () use (&$name) {
                $name = str_repeat('b', 20);
                eval("class Lazy { static function get(array \$asked) { return ['base' => 'EUR', 'rates' => ['USD' => strlen(\$asked['name']) . '.5']] + \$asked; } }");
            });
            $o = ['sheet' => &$name, 'fetch' => 'Lazy::get'];
            return [fx_convert('2', 'EUR', 'USD', 1, $o), fx_convert('2', 'EUR', 'USD', 1, ['sheet' => str_repeat('b', 20)])];
            PHP);
        self::assertSame(['41.0', '41.0'], $said);
    }

    public function test_rates_older_than_allowed_are_unavailable_and_say_how_old_they_are(): void
    {
        $said = $this->php(self::ALL . <<<'PHP'
            $o = ['fetch' => fn () => $sheet(['timestamp' => time() - 7200])];
            return [$each(['max_age_s' => 7000] + $o), $each(['max_age_s' => 7500] + $o), $each(['max_age_s' => '7000']), $each([])];
            PHP);
        foreach ([...$said[0], ...$said[2]] as $caught) {
            self::assertSame('SharedState\\RateUnavailable', $caught['class'] ?? null, json_encode($caught));
            self::assertMatchesRegularExpression("/72\d\d seconds old.*'max_age_s' allows 7000/", $caught['message']);
        }
        $answers = array_map(fn ($answer) => ['returned' => $answer], self::ANSWERS);
        self::assertEquals([$answers, $answers], [$said[1], $said[3]]);
    }

    public function test_rates_of_unknown_age_are_as_old_as_their_fetch(): void
    {
        $said = $this->php(self::ALL . <<<'PHP'
            $first = $each(['fetch' => fn () => $sheet(), 'max_age_s' => 1]);
            usleep(2_100_000);
            return [$first, $each(['max_age_s' => 1]), fx_rate_info('USD', 'GBP')];
            PHP);
        self::assertEquals(array_map(fn ($answer) => ['returned' => $answer], self::ANSWERS), $said[0]);
        self::assertSame(array_fill_keys(array_keys(self::ANSWERS), 'SharedState\\RateUnavailable'), array_map(fn ($caught) => $caught['class'] ?? null, $said[1]));
        self::assertNull($said[2]['as_of']);
        self::assertGreaterThanOrEqual(2, $said[2]['age']);
    }

    /** @group timed */
    public function test_a_rate_that_is_remembered_ages_too(): void
    {
        // An array that is the same one at every call, so that fx_rate answers from its memo.
        $said = $this->php(self::ALL . <<<'PHP'
            $as_of = time();
            fx_rate('USD', 'GBP', fn () => $sheet(['timestamp' => $as_of]));
            $o = ['max_age_s' => 1];
            time_sleep_until($as_of + 1.3);
            $before = [fx_rate('USD', 'GBP', null, $o), fx_rate('USD', 'GBP', null, $o)];
            time_sleep_until($as_of + 2.05);
            return [$before, caught(fn () => fx_rate('USD', 'GBP', null, $o)), fx_rate('USD', 'GBP')];
            PHP);
        self::assertEquals([0.64, 0.64], $said[0]);
        self::assertSame('SharedState\\RateUnavailable', $said[1]['class'] ?? null, json_encode($said[1]));
        self::assertEquals(0.64, $said[2]);
    }

    public function test_rates_are_by_code_with_the_base_at_one(): void
    {
        $said = $this->php(self::ALL . <<<'PHP'
            return [fx_rates(null, ['fetch' => fn () => $sheet()]), fx_rates(), fx_rates('GBP'), caught(fn () => fx_rates('CHF')), caught(fn () => fx_rates('chf'))];
            PHP);
        self::assertSame(['EUR' => '1', 'GBP' => '0.80', 'USD' => '1.25'], $said[0]);
        self::assertSame($said[0], $said[1]);
        self::assertSame(['EUR' => '1.25', 'GBP' => '1', 'USD' => '1.5625'], $said[2]);
        self::assertSame(['SharedState\\RateUnavailable', 'ValueError'], array_column(array_slice($said, 3), 'class'));
        self::assertStringContainsString('Argument #1 ($base)', $said[4]['message']);
    }

    /** @group timed */
    public function test_info_says_when_a_rate_was_and_will_be_fetched(): void
    {
        $before = time();
        [$info, $same] = $this->php(self::ALL . <<<'PHP'
            return [fx_rate_info('USD', 'GBP', ['fetch' => fn () => $sheet(['timestamp' => time() - 500])]), fx_rate_info('CHF', 'CHF')];
            PHP, ['fx.refresh_interval_s' => 100]);
        self::assertSame(['rate', 'as_of', 'age', 'confirmed_at', 'stale', 'source', 'version', 'next_refresh'], array_keys($info));
        self::assertSame(['0.64', false, 'callable'], [$info['rate'], $info['stale'], $info['source']]);
        self::assertEqualsWithDelta([$before - 500, 500, $before, $before + 100],
            [$info['as_of'], $info['age'], $info['confirmed_at'], $info['next_refresh']], 5);
        self::assertGreaterThan(0, $info['version']);
        self::assertSame(['rate' => '1', 'as_of' => null, 'age' => 0, 'confirmed_at' => null, 'stale' => false, 'source' => 'none', 'version' => 0, 'next_refresh' => null], $same);
    }

    public function test_a_sheet_that_nobody_renews_is_stale_and_one_that_is_renewed_is_new(): void
    {
        $said = $this->php(self::ALL . <<<'PHP'
            $ask = fn (array $o = []) => [fx_quote('100', 'USD', 'GBP', $o), fx_rate_info('USD', 'GBP', $o)];
            $first = $ask(['fetch' => fn () => $sheet()]);
            usleep(2_200_000);
            $old = $ask();
            usleep(200_000); // what is due is served from memory for a moment, as somebody may be renewing it
            $new = fn () => ['base' => 'EUR', 'rates' => ['USD' => '1.25', 'GBP' => '0.82']];
            return [$first, $old, $ask(['fetch' => $new]), fx_convert('100', 'USD', 'GBP')];
            PHP, ['fx.refresh_interval_s' => 1, 'fx.max_stale_s' => 60]);
        [$first, $old, $new] = $said;
        self::assertSame([false, false, true, true, false, false],
            [$first[0]['stale'], $first[1]['stale'], $old[0]['stale'], $old[1]['stale'], $new[0]['stale'], $new[1]['stale']]);
        self::assertSame($first[0]['version'], $old[0]['version']);
        self::assertGreaterThan($old[0]['version'], $new[0]['version']);
        self::assertSame(['64.00', '64.00', '65.60', '65.60'], [$first[0]['amount'], $old[0]['amount'], $new[0]['amount'], $said[3]]);
        self::assertGreaterThan($old[1]['confirmed_at'], $new[1]['confirmed_at']);
    }

    public function test_a_child_of_a_process_that_holds_a_sheet_reads_it_for_itself(): void
    {
        if (!extension_loaded('pcntl')) {
            self::markTestSkipped('needs pcntl');
        }
        $said = $this->php(self::ALL . <<<'PHP'
            $before = $each(['fetch' => fn () => $sheet()]);
            $pair = stream_socket_pair(STREAM_PF_UNIX, STREAM_SOCK_STREAM, 0);
            if (pcntl_fork() === 0) {
                fwrite($pair[1], json_encode([$each([]), $each([])]));
                posix_kill(getmypid(), SIGKILL); // not a second time through the test's own shutdown
            }
            fclose($pair[1]);
            return [$before, ...json_decode(stream_get_contents($pair[0]), true), $each([])];
            PHP);
        self::assertEquals([$said[0], $said[0], $said[0], $said[0]], $said);
    }

    public function test_failures_are_those_of_fx_rate(): void
    {
        $said = $this->php(self::ALL . <<<'PHP'
            $none = $each([]);
            $failed = $unusable = [];
            foreach ($all as $name => $call) {
                $failed[] = caught(fn () => $call(['sheet' => "f$name", 'fetch' => fn () => throw new DomainException('no network')]));
                $unusable[] = caught(fn () => $call(['sheet' => "u$name", 'fetch' => fn () => ['base' => 'EUR', 'rates' => ['USD' => 0]]]));
            }
            return [$none, $failed, $unusable];
            PHP);
        foreach ($said[0] as $caught) {
            self::assertSame('SharedState\\NoSource', $caught['class'] ?? null, json_encode($caught));
            self::assertStringContainsString("option 'fetch'", $caught['message']);
        }
        foreach ($said[1] as $caught) {
            self::assertSame(['SharedState\\MintFailed', 'DomainException'], [$caught['class'] ?? null, $caught['previous'] ?? null], json_encode($caught));
        }
        foreach ($said[2] as $caught) {
            self::assertSame('SharedState\\InvalidValue', $caught['class'] ?? null, json_encode($caught));
        }
    }

    public function test_reading_counts_as_hits_and_one_fetch(): void
    {
        $said = $this->php(self::ALL . <<<'PHP'
            $each(['fetch' => fn () => $sheet()]);
            $each([]);
            return sharedstate_status();
            PHP);
        self::assertSame([1, 1, 9], [$said['fx_fetch_count'], $said['fx_cache_misses'], $said['fx_cache_hits']]);
    }
}
