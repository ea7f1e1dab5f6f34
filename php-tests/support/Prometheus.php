<?php

declare(strict_types=1);

namespace SharedState\Tests\Support;

use RuntimeException;

require_once dirname(__DIR__, 2) . '/build/demo.d/rules.php';

/** A real Prometheus that scrapes every second and judges by build/prometheus/alerts.yml, in which an hour takes 15 s. */
final class Prometheus
{
    public const RULES = __DIR__ . '/../../build/prometheus/alerts.yml';

    private readonly int $port;
    private readonly Process $process;

    /** @param array<string, list<array{int, string, string}>> $jobs port, path and query (`name=value`) of each target, by job */
    public function __construct(string $folder, array $jobs)
    {
        $this->port = RedisServer::freePort();
        $configs = [];
        foreach ($jobs as $job => $targets) {
            $addresses = array_map(static fn (array $target): string => "127.0.0.1:$target[0]", $targets);
            [, $path, $query] = $targets[0];
            [$name, $value] = explode('=', $query);
            $configs[] = ['job_name' => $job, 'metrics_path' => $path, 'params' => [$name => [$value]], 'static_configs' => [['targets' => $addresses]]];
        }
        file_put_contents("$folder/rules.yml", rules_for_replay((string) file_get_contents(self::RULES)));
        // JSON is YAML.
        file_put_contents("$folder/prometheus.yml", json_encode([
            'global' => ['scrape_interval' => '1s', 'scrape_timeout' => '1s', 'evaluation_interval' => '1s'],
            'rule_files' => ["$folder/rules.yml"],
            'scrape_configs' => $configs,
        ], JSON_UNESCAPED_SLASHES));
        $this->process = Process::start(['prometheus', "--config.file=$folder/prometheus.yml", "--storage.tsdb.path=$folder/tsdb",
            "--web.listen-address=127.0.0.1:$this->port", '--log.level=warn'], "$folder/prometheus.log");
        $deadline = microtime(true) + 20;
        while (@file_get_contents("http://127.0.0.1:$this->port/-/ready") === false) {
            if (!$this->process->isRunning() || microtime(true) > $deadline) {
                throw new RuntimeException('Prometheus did not start: ' . $this->process->tail());
            }
            usleep(20_000);
        }
    }

    /** @return array<string, float> the value of each series, by its labels as text (`{a="b", c="d"}`) */
    public function ask(string $expression): array
    {
        $values = [];
        foreach ($this->api('query', ['query' => $expression])['result'] as ['metric' => $labels, 'value' => [, $value]]) {
            ksort($labels);
            $pairs = array_map(static fn (string $name, string $is): string => "$name=\"$is\"", array_keys($labels), $labels);
            $values['{' . implode(', ', $pairs) . '}'] = (float) $value;
        }
        return $values;
    }

    /** @return list<string> "job: alert" for each that fires now */
    public function firing(): array
    {
        $firing = [];
        foreach ($this->api('alerts', [])['alerts'] as ['labels' => $labels, 'state' => $state]) {
            if ($state === 'firing') {
                $firing["{$labels['job']}: {$labels['alertname']}"] = true;
            }
        }
        ksort($firing);
        return array_keys($firing);
    }

    /** @return list<string> "job: alert" for each that has fired since the start */
    public function haveFired(): array
    {
        preg_match_all('/alertname="(\w+)".* job="(\w+)"/', implode("\n", array_keys($this->ask('max_over_time(ALERTS{alertstate="firing"}[1h])'))), $found);
        $fired = array_unique(array_map(static fn (string $job, string $alert): string => "$job: $alert", $found[2], $found[1]));
        sort($fired);
        return $fired;
    }

    /** @return array<string, mixed> */
    private function api(string $what, array $query): array
    {
        $context = stream_context_create(['http' => ['ignore_errors' => true, 'timeout' => 10.0]]);
        $answer = json_decode((string) file_get_contents("http://127.0.0.1:$this->port/api/v1/$what?" . http_build_query($query), false, $context), true);
        if (($answer['status'] ?? null) !== 'success') {
            throw new RuntimeException("Prometheus: $what: " . ($answer['error'] ?? 'no answer'));
        }
        return $answer['data'];
    }
}
