<?php

declare(strict_types=1);

use SharedState\Tests\Support\Cli;
use SharedState\Tests\Support\Promtool;
use SharedState\Tests\Support\TestCase;

/** What Prometheus is told. Names are cut down to families, and no value is among them. */
final class MetricsTest extends TestCase
{
    private const MINT = '$mint = static fn (array $for) => ["access_token" => "SECRET.TOKEN." . bin2hex($for["name"]), "expires_in" => 3600];';

    public function test_promtool_has_nothing_against_the_text(): void
    {
        if (!Promtool::isThere()) {
            self::markTestSkipped('promtool is not installed (Debian: prometheus)');
        }
        $text = $this->php(self::MINT . <<<'PHP'
            foreach (['crm:1', "caf\xe9", "caf\xe8", 'we"ird\\', '', 'ünï', '{a="b"} 1'] as $name) {
                $name === '' || shared_token_get($name, $mint);
            }
            try { shared_token_get('bad', static fn () => throw new RuntimeException('no')); } catch (SharedState\MintFailed) {}
            fx_rate('EUR', 'USD', static fn () => ['base' => 'EUR', 'rates' => ['USD' => '1.1']]);
            fx_rate('EUR', 'USD', static fn () => ['base' => 'EUR', 'rates' => ['USD' => '1.1']], ['sheet' => 'a "second"']);
            return sharedstate_metrics();
            PHP);
        self::assertSame('', Promtool::complaints($text, $this->folder));
        self::assertNotSame('', Promtool::complaints(str_replace('# EOF', '', $text), $this->folder), 'promtool looks');
        self::assertStringEndsWith("# EOF\n", $text);
    }

    public function test_after_known_calls_the_counts_are_exact_by_family_and_reason(): void
    {
        $lines = $this->metrics(self::MINT . <<<'PHP'
            for ($i = 0; $i < 5; $i++) { shared_token_get('crm:1', $mint); }              // a mint and 4 from the memo
            for ($i = 0; $i < 3; $i++) { shared_token_get('crm:2', $mint); }              // a mint and 2
            $token = shared_token_get('crm:1');                                           // 1
            shared_token_get('crm:1', $mint, ['rejected' => $token]);                     // a mint
            shared_token_invalidate('crm:2');
            shared_token_get('crm:2', $mint);                                             // a mint
            shared_token_get('short', static fn () => ['access_token' => 'x', 'expires_in' => 1], ['margin' => 0]);
            usleep(1_100_000);
            shared_token_get('short', static fn () => ['access_token' => 'x', 'expires_in' => 1], ['margin' => 0]);
            for ($i = 0; $i < 2; $i++) {
                try { shared_token_get('bad', static fn () => throw new RuntimeException('no')); } catch (SharedState\Exception) {}
            }
            PHP);
        self::assertSame(7, array_sum(self::of($lines, 'sharedstate_token_cache_hits_total', 'family="crm"')));
        self::assertSame(4, $lines['sharedstate_token_cache_misses_total{family="crm",from="mint"}']);
        self::assertSame(2, $lines['sharedstate_token_mint_count_total{family="crm",reason="cold"}']);
        self::assertSame(2, $lines['sharedstate_token_mint_count_total{family="crm",reason="rejected"}'], 'one by an option, one by invalidation');
        self::assertSame(1, $lines['sharedstate_token_mint_count_total{family="short",reason="cold"}']);
        self::assertSame(1, $lines['sharedstate_token_mint_count_total{family="short",reason="expired"}']);
        self::assertSame(1, $lines['sharedstate_mint_failures_total{family="bad"}'], 'the second call only heard of it');
        self::assertSame(2, $lines['sharedstate_tokens_usable{family="crm"}']);
    }

    /** @group extension */
    public function test_after_known_calls_the_tier_the_durations_and_the_lifetimes_are_exact(): void
    {
        $lines = $this->metrics(self::MINT . <<<'PHP'
            for ($i = 0; $i < 5; $i++) { shared_token_get('crm:1', $mint); }              // a mint and 4 from the memo
            for ($i = 0; $i < 3; $i++) { shared_token_get('crm:2', $mint); }              // a mint and 2
            PHP);
        self::assertSame(6, $lines['sharedstate_token_cache_hits_total{family="crm",tier="memo"}']);
        self::assertSame(2, $lines['sharedstate_mint_duration_seconds_count{family="crm"}']);
        // 3,600 s less a margin of 60, of which 0.8.
        self::assertEquals(2 * 2832, $lines['sharedstate_token_lifetime_seconds_total{family="crm"}']);
    }

    public function test_families_add_up_to_the_status(): void
    {
        [$text, $status] = $this->php(self::MINT . <<<'PHP'
            for ($n = 0; $n < 300; $n++) { shared_token_get('tenant' . $n % 7 . ":$n", $mint); shared_token_get("tenant$n", $mint); }
            for ($n = 0; $n < 300; $n++) { shared_token_get('tenant' . $n % 7 . ":$n"); }
            return [sharedstate_metrics(), sharedstate_status()];
            PHP);
        foreach (['token_cache_hits', 'token_cache_misses', 'token_mint_count'] as $name) {
            self::assertSame($status[$name], array_sum(self::of(self::parsed($text), "sharedstate_{$name}_total")), $name);
        }
    }

    public function test_two_hundred_names_of_a_hundred_families_make_sixty_five_time_series(): void
    {
        $lines = $this->metrics(self::MINT . 'for ($n = 0; $n < 200; $n++) { shared_token_get("family" . $n % 100 . ":$n", $mint); }');
        $mints = self::of($lines, 'sharedstate_token_mint_count_total', 'reason="cold"');
        self::assertCount(65, $mints);
        self::assertSame(200, array_sum($mints));
        self::assertSame(72, $lines['sharedstate_token_mint_count_total{family="other",reason="cold"}']);
        self::assertSame(72, $lines['sharedstate_tokens_usable{family="other"}']);
    }

    public function test_a_source_of_rates_has_its_calls_and_what_came_of_them(): void
    {
        $lines = $this->metrics(<<<'PHP'
            $sheet = static fn (string $usd) => static fn () => ['base' => 'EUR', 'rates' => ['USD' => $usd], 'timestamp' => time()];
            fx_rate('EUR', 'USD', $sheet('1.1'));
            try { fx_rate('EUR', 'USD', static fn () => throw new RuntimeException('no'), ['sheet' => 'other']); } catch (SharedState\Exception) {}
            PHP, ['fx.refresh_interval_s' => 600]);
        self::assertSame(2, $lines['sharedstate_fx_provider_calls_total{source="callable"}']);
        self::assertSame(1, $lines['sharedstate_fx_refresh_total{source="callable",result="taken"}']);
        self::assertSame(1, $lines['sharedstate_fx_refresh_total{source="callable",result="failed"}']);
        self::assertSame(600, $lines['sharedstate_fx_refresh_interval_seconds']);
        self::assertArrayHasKey('sharedstate_fx_age_seconds{sheet="default",source="callable"}', $lines);
    }

    /**
     * A queue worker's request lasts for days.
     *
     * @group extension
     */
    public function test_hits_of_a_process_that_runs_on_arrive_within_about_a_second(): void
    {
        $file = "$this->folder/worker.php";
        file_put_contents($file, '<?php ' . self::MINT . 'for ($i = 0; $i < 350; $i++) { shared_token_get("crm", $mint); shared_token_get("shop", $mint); usleep(10_000); if ($i === 250) { touch($argv[1]); } } exec("kill -9 " . getmypid());');
        $worker = "$this->folder/half";
        Cli::run([$file, $worker], ['sharedstate.host.dir' => $this->folder]);
        self::assertFileExists($worker);
        $lines = $this->metrics('');
        foreach (['crm', 'shop'] as $family) {
            $hits = array_sum(self::of($lines, 'sharedstate_token_cache_hits_total', "family=\"$family\""));
            // It tells once a second, and died in the middle of one.
            self::assertLessThan(349, $hits, 'killed: what it had not told is lost');
            self::assertGreaterThan(200, $hits, 'and no more than that');
        }
    }

    public function test_no_token_and_no_name_but_its_family_is_in_the_text(): void
    {
        $text = $this->php(self::MINT . 'shared_token_get("crm:acme-4711", $mint); return sharedstate_metrics();');
        self::assertStringContainsString('family="crm"', $text);
        self::assertStringNotContainsString('SECRET.TOKEN', $text);
        self::assertStringNotContainsString('acme-4711', $text);
    }

    /** @group processes */
    public function test_a_child_does_not_count_what_its_parent_has_not_told_yet(): void
    {
        $lines = $this->metrics(self::MINT . <<<'PHP'
            for ($i = 0; $i < 11; $i++) { shared_token_get('crm', $mint); }
            if (($child = pcntl_fork()) === 0) { shared_token_get('crm', $mint); exit(0); }
            pcntl_waitpid($child, $status);
            PHP);
        self::assertSame(11, array_sum(self::of($lines, 'sharedstate_token_cache_hits_total', 'family="crm"')));
    }

    /** @return array<string, int|float> what the metrics say after the code, by series */
    private function metrics(string $code, array $settings = []): array
    {
        return self::parsed($this->php("$code\nreturn sharedstate_metrics();", $settings));
    }

    /** @return array<string, int|float> */
    private static function parsed(string $text): array
    {
        preg_match_all('/^([^#\s]\S*(?:\{.*\})?) (\S+)$/m', $text, $found);
        return array_combine($found[1], array_map(static fn (string $number) => $number + 0, $found[2]));
    }

    /** @return array<string, int|float> the series of a metric that have the label */
    private static function of(array $lines, string $metric, string $label = ''): array
    {
        return array_filter($lines, static fn (string $series): bool => str_starts_with($series, "$metric{") && str_contains($series, $label), ARRAY_FILTER_USE_KEY);
    }
}
