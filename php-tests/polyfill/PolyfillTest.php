<?php

declare(strict_types=1);

use SharedState\Tests\Support\Build;
use SharedState\Tests\Support\Cli;
use SharedState\Tests\Support\CliResult;
use SharedState\Tests\Support\TestCase;

/** What only the PHP polyfill does, and where it has to say what the extension says: needs both, apcu and brick/math. */
final class PolyfillTest extends TestCase
{
    public function test_the_smoke_test_passes_on_both_stores(): void
    {
        foreach (['array', 'apcu'] as $store) {
            $smoke = $this->runs($store, [dirname(__DIR__) . '/smoke.php']);
            self::assertSame(0, $smoke->status, "$store: " . $smoke->all());
        }
    }

    public function test_beside_the_extension_it_does_nothing(): void
    {
        file_put_contents("$this->folder/x.php", '<?php echo json_encode([isset(sharedstate_status()["polyfill"]), class_exists(SharedState\Polyfill\Call::class, false)]);');
        $said = Cli::command([Build::php(), '-n', '-d', 'extension=' . Build::extension(), '-d', "sharedstate.host.dir=$this->folder",
            ...Build::withPolyfill('array'), "$this->folder/x.php"]);
        self::assertSame('[false,false]', $said->output, $said->errors);
    }

    public function test_composer_installs_it_and_a_script_runs_without_the_extension(): void
    {
        $library = dirname(__DIR__, 2) . '/stubs';
        mkdir("$this->folder/brick");
        // The library of Debian's package; Composer has no network here.
        file_put_contents("$this->folder/brick/composer.json", json_encode(['name' => 'brick/math', 'version' => '0.10.0',
            'autoload' => ['files' => ['autoload.php']]]));
        file_put_contents("$this->folder/brick/autoload.php", '<?php require_once ' . var_export(getenv('BRICK_MATH') ?: '/usr/share/php/Brick/Math/autoload.php', true) . ';');
        mkdir("$this->folder/app");
        file_put_contents("$this->folder/app/composer.json", json_encode(['require-dev' => ['sharedstate/library' => '*'], 'minimum-stability' => 'dev',
            'repositories' => [['packagist.org' => false], ['type' => 'path', 'url' => $library], ['type' => 'path', 'url' => "$this->folder/brick"]]]));
        file_put_contents("$this->folder/app/run.php", '<?php require "vendor/autoload.php";'
            . 'echo shared_token_get("crm", fn () => "T", ["ttl" => 60]), fx_convert("19.99", "EUR", "USD", null, ["fetch" => fn () => ["base" => "EUR", "rates" => ["USD" => "1.1172"]]]);');
        $environment = ['COMPOSER_HOME' => "$this->folder/home", 'COMPOSER_ALLOW_SUPERUSER' => '1', 'COMPOSER_DISABLE_NETWORK' => '1'];
        $valid = Cli::command(['composer', 'validate', '--strict', '--no-interaction', "$library/composer.json"], $environment);
        self::assertSame(0, $valid->status, $valid->all());
        $run = fn (): string => Cli::command([Build::php(), "$this->folder/app/run.php"])->all();
        foreach ([[], ['--no-dev']] as $option) {
            $installed = Cli::command(['composer', 'install', '--no-interaction', "--working-dir=$this->folder/app", ...$option], $environment);
            self::assertSame(0, $installed->status, $installed->all());
            $option === [] ? self::assertSame('T22.33', $run()) : self::assertStringContainsString('undefined function shared_token_get()', $run());
        }
    }

    public function test_the_status_says_that_it_is_the_polyfill(): void
    {
        self::assertSame([true, 'array'], $this->ask('array', 'return [sharedstate_status()["polyfill"], sharedstate_status()["store"]];'));
        self::assertSame([true, 'apcu'], $this->ask('apcu', 'return [sharedstate_status()["polyfill"], sharedstate_status()["store"]];'));
    }

    public function test_it_declares_what_the_extension_declares(): void
    {
        $code = <<<'PHP'
            $functions = extension_loaded('sharedstate') ? array_keys((new ReflectionExtension('sharedstate'))->getFunctions())
                : array_filter(get_defined_functions()['user'], fn ($name) => str_contains((new ReflectionFunction($name))->getFileName(), '/stubs/polyfill/'));
            $classes = array_filter(get_declared_classes(), fn ($name) => preg_match('/^SharedState.\w+$/', $name));
            $said = [];
            foreach ($functions as $name) {
                $function = new ReflectionFunction($name);
                $parameters = array_map(fn ($it) => [$it->getName(), (string) $it->getType(), $it->isDefaultValueAvailable() ? $it->getDefaultValue() : 'none',
                    count($it->getAttributes('SensitiveParameter')), $it->isPassedByReference(), $it->isVariadic()], $function->getParameters());
                $said[strtolower($name)] = [(string) $function->getReturnType(), $parameters];
            }
            foreach ($classes as $name) {
                $class = new ReflectionClass($name);
                $said[$name] = [get_parent_class($name), $class->isFinal(), $class->isAbstract()];
            }
            ksort($said);
            return $said;
            PHP;
        $real = $this->ask(null, $code);
        self::assertGreaterThan(18, count($real));
        self::assertSame($real, $this->ask('array', $code));
    }

    public function test_it_provides_the_version_of_the_extension(): void
    {
        $version = $this->ask(null, 'return sharedstate_status()["version"];');
        $package = json_decode(file_get_contents(dirname(__DIR__, 2) . '/stubs/composer.json'), true);
        self::assertSame($version, $package['provide']['ext-sharedstate']);
        self::assertSame($version, $this->ask('array', 'return sharedstate_status()["version"];'));
    }

    public function test_every_code_has_the_decimals_that_the_extension_knows(): void
    {
        $code = <<<'PHP'
            foreach (range('A', 'Z') as $a) foreach (range('A', 'Z') as $b) foreach (range('A', 'Z') as $c) {
                try { $said[$a . $b . $c] = strlen(fx_convert('1', $a . $b . $c, $a . $b . $c)) - 2; } catch (ValueError) { }
            }
            return $said;
            PHP;
        $real = $this->ask(null, $code);
        self::assertGreaterThan(150, count($real));
        self::assertSame($real, $this->ask('array', $code));
    }

    public function test_random_sheets_have_the_cross_rates_of_the_extension(): void
    {
        $seed = random_int(0, 1 << 30);
        $code = "mt_srand($seed);" . <<<'PHP'
            $digits = fn (int $count) => implode('', array_map(fn () => mt_rand(0, 9), range(1, $count)));
            $rate = fn () => mt_rand(0, 1) ? mt_rand(1, 9999) . '.' . $digits(mt_rand(1, 9)) : '0.' . str_repeat('0', mt_rand(0, 8)) . mt_rand(1, 9) . $digits(mt_rand(1, 6));
            $said = [];
            for ($i = 0; $i < 100; $i++) {
                $rates = ['USD' => $rate(), 'GBP' => $rate(), 'JPY' => mt_rand(1, 300), 'CHF' => mt_rand(1, 99999) / mt_rand(1, 9999), 'XAU' => 1.5e-5, 'AED' => '1', 'NZD' => '1.00'];
                $answer = mt_rand(0, 1) ? ['base' => 'EUR', 'rates' => $rates] : json_encode(['base' => 'EUR', 'rates' => $rates]);
                $o = ['sheet' => "s$i", 'fetch' => fn () => $answer];
                foreach (['EUR', 'USD', 'GBP', 'JPY', 'CHF', 'NZD'] as $base) {
                    $said[] = caught(fn () => fx_rates($base, $o))['returned'] ?? 'unavailable';
                }
                $said[] = [fx_rate('USD', 'CHF', null, $o), fx_convert($digits(20), 'GBP', 'CHF', 12, $o)];
            }
            return $said;
            PHP;
        // As numbers: which zeros the extension leaves at the end of a quotient is up to its library.
        $plain = static fn (mixed $it): mixed => is_string($it) && str_contains($it, '.') ? rtrim(rtrim($it, '0'), '.') : $it;
        [$real, $polyfilled] = [$this->ask(null, $code), $this->ask('array', $code)];
        self::assertCount(700, $real);
        foreach ($real as $i => $answer) {
            self::assertSame(array_map($plain, (array) $answer), array_map($plain, (array) $polyfilled[$i]), "seed $seed, answer $i");
        }
    }

    /** Whatever is in a store, each has one to itself. */
    private const CALLS = <<<'PHP'
        $mint = static fn (array $for) => ['access_token' => 'T' . bin2hex($for['name']), 'expires_in' => 3600];
        foreach (['crm:1', 'crm:2', "caf\xe9", 'we"ird\\', 'ünï', ':none', str_repeat('x', 200)] as $name) {
            for ($i = 0; $i < 3; $i++) { shared_token_get($name, $mint); }
        }
        shared_token_get('crm:1', $mint, ['rejected' => shared_token_get('crm:1'), 'fingerprint' => ['scope' => 'write']]);
        shared_token_get('crm:1', $mint, ['rejected' => shared_token_get('crm:1')]);
        caught(fn () => shared_token_get('bad', fn () => throw new RuntimeException('no')));
        caught(fn () => shared_token_get('bad', $mint));
        shared_token_invalidate('crm:2');
        $sheet = fn (string $usd) => ['fetch' => fn () => ['base' => 'EUR', 'rates' => ['USD' => $usd], 'timestamp' => time()]];
        foreach (['default', 'a "second"'] as $name) { fx_rate('EUR', 'USD', null, ['sheet' => $name] + $sheet('1.25')); fx_rates(null, ['sheet' => $name]); }
        caught(fn () => fx_rate('EUR', 'USD', fn () => 'none', ['sheet' => 'none']));
        PHP;

    /** @dataProvider kinds */
    public function test_each_of_its_metrics_has_the_words_and_numbers_of_the_extension(string $store): void
    {
        $code = self::CALLS . 'return sharedstate_metrics();';
        [$real, $polyfilled] = [$this->ask(null, $code), $this->ask($store, $code)];
        // Hits are of its own tier, and of no other.
        $lines = static fn (string $text): array => preg_grep('/tier="any"\} 0$/',
            preg_replace('/^(\S+cache_hits_total\{.*)tier="\w+"/', '$1tier="any"', explode("\n", trim($text))), PREG_GREP_INVERT);
        self::assertSame([], array_values(array_diff($lines($polyfilled), $lines($real))));
        foreach (['token_cache_hits_total', 'token_cache_misses_total', 'token_mint_count_total', 'mint_failures_total', 'tokens_usable', 'fx_age_seconds', 'fx_refresh_total', 'host_entries'] as $name) {
            self::assertMatchesRegularExpression("/^sharedstate_$name\\b.* [1-9]|^sharedstate_fx_age_seconds\{/m", $polyfilled, $name);
        }
        self::assertStringEndsWith("# EOF\n", $polyfilled);
    }

    /** @dataProvider kinds */
    public function test_its_entries_are_those_of_the_extension(string $store): void
    {
        $code = self::CALLS . <<<'PHP'
            $plain = static function (array $entry): array {
                foreach (['version', 'minted_at', 'refresh_at', 'usable_until', 'expires_at'] as $changing) { $entry[$changing] = get_debug_type($entry[$changing]); }
                unset($entry['age'], $entry['minted_by']['script'], $entry['rates']['as_of'], $entry['rates']['confirmed_at'], $entry['backoff']['until']);
                return ['name' => bin2hex($entry['name']), 'family' => bin2hex($entry['family'])] + $entry;
            };
            $said = array_map($plain, sharedstate_entries());
            usort($said, fn ($one, $other) => [$one['name'], $one['fingerprint']] <=> [$other['name'], $other['fingerprint']]);
            return $said;
            PHP;
        $real = $this->ask(null, $code);
        self::assertCount(12, $real);
        self::assertEquals($real, $this->ask($store, $code));
    }

    /** @return array<string, array{string}> */
    public static function kinds(): array
    {
        return ['with APCu' => ['apcu'], 'without' => ['array']];
    }

    public function test_the_lock_of_a_killed_process_is_no_entry(): void
    {
        $names = $this->ask('apcu', <<<'PHP'
            shared_token_get('crm', fn () => 'T', ['ttl' => 60]);
            foreach (new APCUIterator('/:t:[^:]*:crm$/') as $record => $_) { apcu_add("$record:lock", 1); }
            return [count(iterator_to_array(new APCUIterator('/:lock$/'))), array_column(sharedstate_entries(), 'name')];
            PHP);
        self::assertSame([1, ['crm']], $names);
    }

    public function test_four_processes_that_meet_at_sixty_families_lose_no_place_and_no_count(): void
    {
        [$families, $sum] = $this->ask('apcu', <<<'PHP'
            $start = microtime(true) + 0.05;
            for ($child = 0; $child < 4; $child++) {
                if (pcntl_fork() === 0) {
                    while (microtime(true) < $start) {}
                    for ($n = 0; $n < 2_000; $n++) { shared_token_get('family0', fn () => 'T', ['ttl' => 60]); }
                    for ($n = 0; $n < 60; $n++) { shared_token_get('family' . ($n + 15 * $child) % 60 . ":$child", fn () => 'T', ['ttl' => 60]); }
                    exit(0);
                }
            }
            while (pcntl_wait($status) > 0) {}
            preg_match_all('/^sharedstate_tokens_usable\{family="(family\d+)"\} [45]$/m', sharedstate_metrics(), $families);
            $status = sharedstate_status();
            return [count(array_unique($families[1])), $status['token_mint_count'] + $status['token_cache_hits']];
            PHP);
        self::assertSame([60, 8_240], [$families, $sum]);
    }

    /** @return list<string> calls that fail, in PHP */
    private static function wrongCalls(): array
    {
        $token = static fn (string $options): string => "shared_token_get('crm', fn () => 'T', $options)";
        $mint = static fn (string $answer): string => "shared_token_get('crm', fn () => $answer)";
        $fetch = static fn (string $sheet): string => "fx_rate('EUR', 'USD', fn () => $sheet)";
        return [
            "shared_token_get('')", "shared_token_get(str_repeat('x', 201))", 'shared_token_info("a\nb")', "shared_token_get('none')", "shared_token_invalidate_all('')", 'shared_token_invalidate_all("a\nb")', 'sharedstate_entries(0)', 'sharedstate_entries(-5)', "shared_token_invalidate('', 'x')",
            ...array_map($token, ["['tll' => 1]", "[1]", "['ttl' => 0]", "['ttl' => 'long']", "['ttl' => 1e12]", "['margin' => -1]", "['margin' => 1e9]",
                "['refresh_ratio' => 1]", "['refresh_ratio' => 0]", "['wait_ms' => -1]", "['store_down' => 'x']", "['store_down' => 1]", "['keep' => 'x']",
                "['keep' => [1]]", "['keep' => ['Token']]", "['fingerprint' => 1.5]", "['fingerprint' => [new stdClass]]", "['rejected' => 5]", "['defer' => 1]"]),
            ...array_map($mint, ['null', '42', '1.5', '[]', "['a' => 1]", "['expires_in' => 5]", "['access_token' => null]", "['access_token' => 5]", "''", "'  '", "'plain'",
                "'{\"a'", "'<html>'", "'access_token=x&y=z'", '"T\n"', '"\xff"', "['access_token' => 'T']", "['token' => 'T', 'expires_in' => 'soon']",
                "['token' => 'T', 'expires_in' => 0]", "['token' => 'T', 'expires_in' => 1e10]", "['token' => 'T', 'expires_at' => 'tomorrow']", "['token' => 'T', 'expires_at' => true]",
                "['token' => 'T', 'expires_at' => 5]", "['token' => 'T', 'expires_in' => []]", 'new stdClass', '(object) []', 'new ArrayObject', "['token' => 'T', 'x' => new stdClass]",
                "new class { function getToken() { return 5; } }", "new class { function getToken() { return 'T'; } function getExpires() { return 'x'; } }"]),
            "shared_token_get('crm', fn () => throw new DomainException('GET https://u:p@a.example/t?key=x said token=abc'))",
            "shared_token_get('crm', fn () => throw new Exception('Bearer abc.def and eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2ln'))",
            "shared_token_get('crm', fn () => shared_token_get('crm'))",
            "fx_rate('eur', 'USD')", "fx_rate('EUR', '')", "fx_rate('EUR', 'USD')", "fx_rates('x')", "fx_convert('1,5', 'EUR', 'EUR')", "fx_convert('1', 'EUR', 'XAU')",
            "fx_convert('1', 'EUR', 'EUR', 29)", "fx_quote('1', 'EUR', 'BTC')", "fx_convert(str_repeat('1', 41), 'EUR', 'EUR')", "fx_quote('', 'EUR', 'EUR')",
            "fx_rate('EUR', 'EUR', null, ['fetsh' => 1])", "fx_rate('EUR', 'USD', null, ['sheet' => ''])", "fx_rate('EUR', 'EUR', null, ['sheet' => 1])",
            "fx_rate('EUR', 'EUR', null, ['max_age_s' => 0])", "fx_rate('EUR', 'EUR', null, ['rounding' => 'up'])", "fx_rate('EUR', 'EUR', null, ['fetch' => 'nope'])",
            "fx_rate('EUR', 'EUR', fn () => 1, ['fetch' => fn () => 2])",
            ...array_map($fetch, ['null', '5', 'new stdClass', "'x'", "'{}'", "'[]'", '[]', "['base' => 'EUR']", "['base' => 'eur', 'rates' => ['USD' => 1]]",
                "['base' => 'EUR', 'rates' => []]", "['base' => 'EUR', 'rates' => ['USD' => 0]]", "['base' => 'EUR', 'rates' => ['USD' => -1]]",
                "['base' => 'EUR', 'rates' => ['USD' => 'x']]", "['base' => 'EUR', 'rates' => ['usd' => 1]]", "['base' => 'EUR', 'rates' => ['EUR' => 1]]",
                "['base' => 'EUR', 'rates' => ['USD' => 1, 'EUR' => 2]]", "['base' => 'EUR', 'rates' => ['USD' => 1], 'timestamp' => 'now']",
                "['base' => 'EUR', 'rates' => ['USD' => 1], 'timestamp' => time() * 1000]", "['base' => 'EUR', 'rates' => ['USD' => 1], 'date' => '2026-13-01']",
                "['base' => 'EUR', 'rates' => ['USD' => 1], 'timestamp' => 1000]", "['base' => 'EUR', 'rates' => ['GBP' => 1]]",
                "['base' => 'EUR', 'rates' => ['USD' => 1], 'timestamp' => time() + 200000]"]),
            "fx_rate('EUR', 'USD', fn () => throw new DomainException('no network'))",
        ];
    }

    public function test_wrong_calls_end_with_the_exceptions_and_sentences_of_the_extension(): void
    {
        $told = [];
        foreach ([null, 'array'] as $store) {
            foreach (self::wrongCalls() as $i => $call) {
                // Every call with a name of its own, for a failure is followed by a pause.
                $calls[$i] = strtr($call, ["'crm'" => "'crm$i'"]);
            }
            $code = 'ini_set("zend.exception_ignore_args", "0"); $said = [];';
            foreach ($calls as $i => $call) {
                $call = preg_match('/^fx_rate\(\'EUR\', \'USD\', fn.*\)$/s', $call) === 1 ? substr($call, 0, -1) . ", ['sheet' => 's$i'])" : $call;
                $code .= "\$said[] = array_diff_key(caught(fn () => $call), array_flip(['trace', 'text']));\n";
            }
            $told[] = $this->ask($store, $code . 'return $said;');
        }
        // What names a random pause, another setting, or the code's own file.
        $plain = static fn (array $all): array => array_map(static fn (array $one): array => ['message' => preg_replace('/in \d+\.\d s$/', 'in N s', $one['message'] ?? '')]
            + array_diff_key($one, ['file' => 0]), $all);
        [$real, $polyfilled] = array_map($plain, $told);
        $different = [];
        foreach (self::wrongCalls() as $i => $call) {
            self::assertArrayHasKey('class', $real[$i], "$call does not fail");
            if ($real[$i]['class'] === 'SharedState\NoSource' && str_starts_with($call, 'fx_')) {
                $real[$i]['message'] = str_replace('set sharedstate.fx.sources, or ', '', $real[$i]['message']);
            }
            if ($real[$i] !== $polyfilled[$i]) {
                $different[$call] = [$real[$i], $polyfilled[$i]];
            }
        }
        self::assertSame([], $different);
    }

    /** @return array<string, array{array<string, string>, string}> settings that the polyfill cannot keep, and a word of the way out */
    public static function promises(): array
    {
        return [
            'Redis' => [['redis.dsn' => 'redis://user:hunter-2@127.0.0.1:1'], 'Load the sharedstate extension'],
            'sealing' => [['encryption_key_file' => '/etc/key'], 'Load the sharedstate extension'],
            'a sheet on disk' => [['fx.state_dir' => '/tmp'], 'Load the sharedstate extension'],
            'sources' => [['fx.sources' => 'json:http://127.0.0.1:1/?key=hunter-2'], 'load the sharedstate extension, or pass a callable'],
        ];
    }

    /**
     * @dataProvider promises
     * @param array<string, string> $settings
     */
    public function test_what_it_cannot_do_is_refused_and_not_left_out(array $settings, string $words): void
    {
        $ini = array_combine(array_map(static fn (string $name): string => "sharedstate.$name", array_keys($settings)), $settings);
        $caught = $this->ask('array', "return caught(fn () => fx_rate('EUR', 'USD'));", $ini);
        self::assertSame('SharedState\\ConfigError', $caught['class'] ?? null, json_encode($caught));
        self::assertStringContainsString(array_key_first($ini), $caught['message']);
        self::assertStringContainsString($words, $caught['message']);
        self::assertStringNotContainsString('hunter', $caught['text']);
    }

    public function test_redis_in_the_environment_is_refused_as_well(): void
    {
        $caught = $this->ask('array', "return caught(fn () => shared_token_get('crm', fn () => 'T', ['ttl' => 60]));", [], ['SHAREDSTATE_REDIS_DSN' => 'redis://a:hunter-2@b']);
        self::assertSame('SharedState\\ConfigError', $caught['class'] ?? null, json_encode($caught));
        self::assertStringContainsString('SHAREDSTATE_REDIS_DSN', $caught['message']);
        self::assertStringNotContainsString('hunter', $caught['text']);
    }

    public function test_with_sources_set_a_callable_is_asked(): void
    {
        $rate = $this->ask('array', "return fx_rate('EUR', 'USD', fn () => ['base' => 'EUR', 'rates' => ['USD' => 2]]);", ['sharedstate.fx.sources' => 'ecb']);
        self::assertEquals(2.0, $rate);
    }

    public function test_its_settings_have_the_defaults_of_the_stub(): void
    {
        preg_match_all('/^ \*     sharedstate\.(\S+) =(?: (.*))?$/m', file_get_contents(dirname(__DIR__, 2) . '/stubs/sharedstate.stub.php'), $told);
        self::assertSame(array_combine($told[1], $told[2]), $this->ask('array', 'return SharedState\Polyfill\Settings::defaults();'));
    }

    public function test_a_killed_minter_holds_its_host_up_for_max_mint_ms_and_no_longer(): void
    {
        [$early, $late, $took] = $this->ask('apcu', <<<'PHP'
            if (($child = pcntl_fork()) === 0) {
                shared_token_get('crm', function () { touch(getenv('STARTED')); sleep(60); });
            }
            while (!file_exists(getenv('STARTED'))) { usleep(1_000); }
            exec("kill -9 $child");
            pcntl_waitpid($child, $status);
            $early = caught(fn () => shared_token_get('crm', fn () => 'T', ['ttl' => 60, 'wait_ms' => 100]));
            $start = microtime(true);
            return [$early, shared_token_get('crm', fn () => 'T', ['ttl' => 60]), microtime(true) - $start];
            PHP, ['sharedstate.token.max_mint_ms' => '1000'], ['STARTED' => "$this->folder/started"]);
        self::assertSame('SharedState\\WaitTimeout', $early['class'] ?? null, json_encode($early));
        self::assertSame('T', $late);
        self::assertLessThan(10.0, $took);
    }

    public function test_a_callable_that_exits_leaves_its_right_to_the_next(): void
    {
        $said = $this->ask('apcu', <<<'PHP'
            if (pcntl_fork() === 0) {
                shared_token_get('crm', function () { exit(0); });
            }
            pcntl_wait($status);
            return caught(fn () => shared_token_get('crm', fn () => 'next', ['ttl' => 60, 'wait_ms' => 0]));
            PHP);
        self::assertSame('next', $said['returned'] ?? null, json_encode($said));
    }

    /** @return array<string, array{string, int}> */
    public static function stores(): array
    {
        return ['once an hour with APCu' => ['apcu', 1], 'at each request without' => ['array', 3]];
    }

    /** @dataProvider stores */
    public function test_a_web_server_without_the_extension_says_so_in_its_log(string $store, int $times): void
    {
        putenv("POLYFILL=$store");
        try {
            $host = $this->host('north', [], ['pm.max_children' => 2]);
        } finally {
            putenv('POLYFILL');
        }
        for ($i = 0; $i < 3; $i++) {
            $tokens[] = $this->tokenOf($host);
        }
        self::assertCount($times, array_unique($tokens));
        $this->until('the log', static fn (): bool => substr_count($host->logged(), 'its PHP polyfill answers') >= $times);
        self::assertSame($times, substr_count($host->logged(), 'its PHP polyfill answers'), $host->logged());
    }

    /** @param ?string $store null: the extension */
    private function ask(?string $store, string $code, array $ini = [], array $environment = []): mixed
    {
        $file = "$this->folder/code-" . bin2hex(random_bytes(4)) . '.php';
        file_put_contents($file, "<?php\nrequire " . var_export($this->page('cli.php'), true) . ";\n\$result = (static function () {\n$code\n})();\n"
            . "file_put_contents(" . var_export("$file.json", true) . ", json_encode(['result' => \$result], JSON_INVALID_UTF8_SUBSTITUTE));\n");
        $said = $this->runs($store, [$file], $ini, $environment);
        self::assertFileExists("$file.json", $said->all());
        return json_decode(file_get_contents("$file.json"), true)['result'];
    }

    /** @param list<string> $arguments */
    private function runs(?string $store, array $arguments, array $ini = [], array $environment = []): CliResult
    {
        $options = $store === null ? ['-d', 'extension=' . Build::extension()] : Build::withPolyfill($store);
        foreach ($ini + ['sharedstate.host.dir' => $this->folder, 'display_errors' => 'stderr'] as $name => $value) {
            array_push($options, '-d', "$name=\"$value\"");
        }
        return Cli::command([Build::php(), '-n', ...$options, ...$arguments], $environment);
    }
}
