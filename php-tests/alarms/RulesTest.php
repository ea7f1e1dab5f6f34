<?php

declare(strict_types=1);

use SharedState\Tests\Support\Cli;
use SharedState\Tests\Support\Nginx;
use SharedState\Tests\Support\Prometheus;
use SharedState\Tests\Support\RatesServer;
use SharedState\Tests\Support\TestCase;

/** The rules and the dashboard as files: what they ask for is there, and Prometheus understands it. */
final class RulesTest extends TestCase
{
    private const FOLDER = __DIR__ . '/../../build/prometheus';

    public function test_promtool_has_nothing_against_the_rules(): void
    {
        $result = Cli::command(['promtool', 'check', 'rules', '--lint=all', '--lint-fatal', self::FOLDER . '/alerts.yml']);
        self::assertSame(0, $result->status, $result->all());
    }

    public function test_each_alert_fires_clears_and_keeps_silent_in_simulated_time(): void
    {
        $result = Cli::command(['promtool', 'test', 'rules', self::FOLDER . '/alerts_test.yml'], [], 60.0);
        self::assertSame(0, $result->status, $result->all());
        $tests = (string) file_get_contents(self::FOLDER . '/alerts_test.yml');
        foreach (self::alerts() as $alert) {
            self::assertStringContainsString("alertname=\"$alert\"", $tests, 'has a test in which it fires');
        }
    }

    public function test_operations_says_what_to_do_about_each_alert(): void
    {
        $operations = (string) file_get_contents(dirname(__DIR__, 2) . '/docs/OPERATIONS.md');
        preg_match_all('/`(SharedState[A-Z]\w+)`/', $operations, $found);
        self::assertSame(self::alerts(), array_values(array_unique(array_intersect(self::sorted($found[1]), self::alerts()))));
        self::assertSame([], array_diff($found[1], self::alerts()), 'and about no other');
        self::assertStringContainsString("\n## Alerts\n", $operations, 'the anchor that descriptions link to');
    }

    public function test_what_rules_and_dashboard_ask_for_is_in_a_scrape_and_prometheus_understands_every_expression(): void
    {
        $provider = new RatesServer($this->folder);
        $settings = ['redis.dsn' => $this->redis()->dsn(), 'fx.sources' => $provider->json()];
        $targets = [];
        $metrics = '';
        // Two hosts, for what one of a kind may hide: series that cannot be matched one to one.
        foreach (['south', 'north'] as $name) {
            $host = $this->host($name, $settings, ['pm.max_children' => 2]);
            $this->tokenOf($host);
            $this->get($host, 'rates.php', []);
            $metrics .= $this->get($host, 'metrics.php', [])->json()['metrics'];
            mkdir("$this->folder/nginx-$name");
            $targets[] = [(new Nginx("$this->folder/nginx-$name", $host, dirname(__DIR__, 2) . '/build/demo.d'))->port, '/metrics.php', 'cache=shared'];
        }
        preg_match_all('/^(sharedstate_\w+)(?:\{| )/m', $metrics, $found);
        $there = array_unique($found[1]);
        $prometheus = new Prometheus($this->folder, ['shop' => $targets]);
        $this->until('two scrapes of both', fn (): bool => $prometheus->ask('count_over_time(up{job="shop"}[1m]) >= 2 and up == 1') !== []
            && count($prometheus->ask('sharedstate_store_up')) === 2);
        $expressions = [...self::ofRules(), ...self::ofDashboard()];
        self::assertGreaterThan(40, count($expressions));
        foreach ($expressions as $where => $expression) {
            preg_match_all('/(?<![\w:])sharedstate_\w+/', $expression, $asked);
            self::assertSame([], array_values(array_diff($asked[0], $there)), "$where asks for what no host tells");
            // An exception if it cannot be read.
            $prometheus->ask($expression);
        }
        $this->expectExceptionMessage('parse error');
        $prometheus->ask('sum by (job) (sharedstate_store_up');
    }

    public function test_every_panel_of_the_dashboard_has_a_title_a_datasource_of_choice_and_a_place_of_its_own(): void
    {
        $dashboard = self::dashboard();
        self::assertSame('datasource', $dashboard['templating']['list'][0]['type']);
        $taken = [];
        foreach ($dashboard['panels'] as $panel) {
            self::assertNotSame('', $panel['title']);
            ['x' => $x, 'y' => $y, 'w' => $w, 'h' => $h] = $panel['gridPos'];
            self::assertLessThanOrEqual(24, $x + $w, $panel['title']);
            for ($column = $x; $column < $x + $w; $column++) {
                for ($row = $y; $row < $y + $h; $row++) {
                    self::assertArrayNotHasKey("$column $row", $taken, "{$panel['title']} lies on another");
                    $taken["$column $row"] = true;
                }
            }
            if ($panel['type'] !== 'row') {
                self::assertSame('${datasource}', $panel['datasource']['uid'], $panel['title']);
                self::assertNotSame([], $panel['targets'], $panel['title']);
            }
        }
        self::assertCount(count($dashboard['panels']), array_unique(array_column($dashboard['panels'], 'id')));
    }

    /** @return list<string> */
    private static function alerts(): array
    {
        preg_match_all('/^ +- alert: (\w+)$/m', (string) file_get_contents(self::FOLDER . '/alerts.yml'), $found);
        return self::sorted($found[1]);
    }

    /** @return array<string, string> */
    private static function ofRules(): array
    {
        preg_match_all('/^ +- (?:alert|record): (\S+)\n +expr: (?:\|\n((?:          .*\n)+)|(.+)\n)/m', (string) file_get_contents(self::FOLDER . '/alerts.yml'), $found, PREG_SET_ORDER);
        self::assertCount(count(self::alerts()) + 1, $found, 'every rule is found');
        $expressions = [];
        foreach ($found as $rule) {
            $expressions[$rule[1]] = $rule[2] !== '' ? $rule[2] : $rule[3];
        }
        return $expressions;
    }

    /** @return array<string, string> as Grafana asks them, for one job */
    private static function ofDashboard(): array
    {
        $dashboard = self::dashboard();
        $expressions = [];
        foreach ($dashboard['panels'] as $panel) {
            foreach ($panel['targets'] ?? [] as $number => $target) {
                $expressions["{$panel['title']} $number"] = strtr($target['expr'], ['$__rate_interval' => '1m', '$__range' => '1h', '$job' => 'shop', '$instance' => '.*', '$family' => '.*']);
            }
        }
        foreach ($dashboard['templating']['list'] as $variable) {
            if ($variable['type'] === 'query') {
                preg_match('/^label_values\((.+), \w+\)$/', $variable['query']['query'], $found);
                $expressions["\${$variable['name']}"] = strtr($found[1], ['$job' => 'shop']);
            }
        }
        return $expressions;
    }

    /** @return array<string, mixed> */
    private static function dashboard(): array
    {
        return json_decode((string) file_get_contents(self::FOLDER . '/sharedstate.json'), true, flags: JSON_THROW_ON_ERROR);
    }

    private static function sorted(array $names): array
    {
        sort($names);
        return $names;
    }
}
