<?php

declare(strict_types=1);

use SharedState\Tests\Support\Build;
use SharedState\Tests\Support\Cli;
use SharedState\Tests\Support\CliResult;
use SharedState\Tests\Support\Ctl;
use SharedState\Tests\Support\Process;
use SharedState\Tests\Support\Promtool;
use SharedState\Tests\Support\RedisServer;
use SharedState\Tests\Support\TestCase;

/** The command line beside hosts that are at work. */
final class CtlTest extends TestCase
{
    private const PASSWORD = 'hunter2-of-redis';

    /** Mints one token and one sheet on the host that the command line then is a part of. */
    private function mintHere(string $names = "'crm'"): void
    {
        $this->php("foreach ([$names] as \$name) { shared_token_get(\$name, fn () => ['access_token' => 'SECRET.TOKEN', 'expires_in' => 3600]); }
            return fx_rate('EUR', 'USD', fn () => ['base' => 'EUR', 'rates' => ['USD' => '1.25'], 'timestamp' => time() - 100]);");
    }

    /** @param array<string, string|int> $settings */
    private function ctl(array $words, array $settings = [], array $environment = []): CliResult
    {
        $result = Ctl::run($words, $settings + ['host.dir' => $this->folder], $environment);
        self::assertDoesNotMatchRegularExpression('/SECRET|' . self::PASSWORD . '|Warning|Notice|Deprecated|Stack trace/', $result->all());
        return $result;
    }

    /** @return list<array<string, mixed>> */
    private function entries(): array
    {
        return json_decode($this->ctl(['list', '--json'])->output, true, 512, JSON_THROW_ON_ERROR);
    }

    // --- Looking ---------------------------------------------------------------------------------

    public function test_status_has_the_numbers_of_the_pools_workers(): void
    {
        $host = $this->host('north');
        $token = $this->tokenOf($host);
        self::assertSame($token, $this->tokenOf($host));
        $settings = ['host.dir' => "$this->folder/host-north"];
        $result = $this->ctl(['status'], $settings);
        self::assertMatchesRegularExpression('/^  token_mint_count +1$/m', $result->output);
        self::assertStringEndsWith("All is well.\n", $result->output);
        self::assertSame(0, $result->status);
        $json = json_decode($this->ctl(['status', '--json'], $settings)->output, true);
        self::assertSame([1, []], [$json['token_mint_count'], $json['troubles']]);
        self::assertStringNotContainsString($token, $result->output);
    }

    public function test_status_says_that_redis_is_away_and_exits_with_1(): void
    {
        $redis = $this->redis();
        $settings = ['redis.dsn' => $redis->dsn()];
        $host = $this->host('north', $settings);
        $this->tokenOf($host);
        $settings['host.dir'] = "$this->folder/host-north";
        self::assertSame(0, $this->ctl(['status'], $settings)->status);
        $redis->kill();
        $this->tokenOf($host, 'another');
        $result = $this->ctl(['status'], $settings);
        self::assertStringContainsString('fail  Redis did not answer', $result->output);
        self::assertSame(1, $result->status);
    }

    public function test_list_has_every_name_and_none_of_them_reaches_the_terminal_as_it_is(): void
    {
        $this->mintHere("'crm', \"a\\u{9b}31m\", \"b\\u{202e}c\", \"d\\xff\"");
        $result = $this->ctl(['list']);
        self::assertSame(1, preg_match('/^crm +token +fresh +(\d+) s +(\d+) min(?: (\d+) s)? /m', $result->output, $said), $result->output);
        // An hour without its margin, and both columns are of one moment.
        self::assertEqualsWithDelta(3540, (int) $said[1] + 60 * (int) $said[2] + (int) ($said[3] ?? 0), 1, $result->output);
        self::assertMatchesRegularExpression('/^default +rates +fresh /m', $result->output);
        foreach (['a\u009b31m', 'b\u202ec', 'd\xff'] as $name) {
            self::assertStringContainsString($name, $result->output);
        }
        self::assertDoesNotMatchRegularExpression('/[^\x0a\x20-\x7e]/', $result->output);
        self::assertSame(['default', "a\u{9b}31m", "b\u{202e}c", 'crm', "d\u{fffd}"], array_column($this->entries(), 'name'));
        $some = $this->ctl(['list', 'c*'])->output;
        self::assertStringContainsString('crm', $some);
        self::assertStringNotContainsString('default', $some);
    }

    public function test_list_says_who_mints_and_why_nobody_does(): void
    {
        $this->php("try { shared_token_get('bad', fn () => throw new Exception(\"no\\e[31m\")); } catch (Exception) {} return 0;", ['token.failure_backoff_ms' => 60_000]);
        $command = 'shared_token_get("slow", function () { sleep(5); return ["access_token" => "x", "expires_in" => 60]; });';
        $minter = Process::start([...Ctl::command([], ['host.dir' => $this->folder], script: '-r'), $command], "$this->folder/minter.log");
        $this->until('it is in flight', fn (): bool => preg_match("/^slow .* in flight for \d+ s by process $minter->pid/m", $this->ctl(['list'])->output) === 1);
        self::assertMatchesRegularExpression('/^bad .* nobody mints for \d+ s, 1 failed: Exception: no.\[31m$/m', $this->ctl(['list'])->output);
    }

    public function test_fx_has_the_sheet_and_each_rate_of_it(): void
    {
        $this->mintHere();
        $sheet = $this->ctl(['fx']);
        self::assertSame(0, $sheet->status, $sheet->all());
        self::assertMatchesRegularExpression('/^base +EUR, with 2 currencies\nsource +callable\nas of .* ago\nconfirmed +2/m', $sheet->output);
        self::assertMatchesRegularExpression('/^rate +0\.8\n/', $this->ctl(['fx', 'usd', 'eur'])->output);
        self::assertSame('1.25', json_decode($this->ctl(['fx', 'EUR', 'USD', '--json'])->output, true)['rate']);
        self::assertSame([1, ''], [$this->ctl(['fx', 'EUR', 'XXX'])->status, $this->ctl(['fx', 'EUR', 'XXX'])->output]);
        self::assertSame(2, $this->ctl(['fx', 'EUR'])->status);
        self::assertSame(2, $this->ctl(['fx', 'EURO', 'USD'])->status);
    }

    public function test_watch_counts_per_second_and_prints_lines_where_there_is_no_terminal(): void
    {
        $this->mintHere();
        $reader = Process::start([...Ctl::command([], ['host.dir' => $this->folder], script: '-r'), 'while (true) { shared_token_get("crm"); sharedstate_status(); usleep(5_000); }'], "$this->folder/reader.log");
        // At most 20 in a tenth of a second, and many more in a whole one.
        $result = $this->ctl(['watch', '0.1', '--count', '7']);
        $reader->stop();
        self::assertSame(0, $result->status);
        preg_match_all('/^\d\d:\d\d:\d\d +([\d.]+)/m', $result->output, $found);
        self::assertCount(7, $found[1], $result->output);
        sort($found[1]);
        self::assertGreaterThan(35.0, (float) $found[1][3], 'hits a second');
        self::assertLessThan(400.0, (float) end($found[1]), 'and not since the start');
        self::assertStringNotContainsString("\e", $result->output);
    }

    public function test_watch_redraws_a_terminal_and_ends_well_with_ctrl_c(): void
    {
        $this->mintHere();
        $extension = is_file(Build::php()) && trim((string) shell_exec(Build::php() . ' -n -d extension=pcntl -r "echo function_exists(\'pcntl_signal\');" 2>/dev/null')) === '1' ? 'pcntl' : null;
        $watch = Ctl::command(['watch', '0.2'], ['host.dir' => $this->folder]);
        array_splice($watch, 2, 0, $extension === null ? [] : ['-d', "extension=$extension"]);
        $command = 'timeout --foreground --preserve-status -s INT 1.5 ' . implode(' ', array_map('escapeshellarg', $watch));
        $result = Cli::command(['script', '-qec', $command, '/dev/null'], ['TERM' => 'xterm']);
        self::assertGreaterThan(2, substr_count($result->output, "\e[H"), $result->output);
        self::assertMatchesRegularExpression('/crm +fresh +4\d min/', $result->output);
        if ($extension !== null) {
            self::assertSame(0, $result->status);
        }
    }

    // --- Metrics ---------------------------------------------------------------------------------

    public function test_the_file_for_node_exporter_is_of_its_format_and_complete_at_every_moment(): void
    {
        $this->mintHere("'crm', 'we\"ird\\\\', \"d\\xff\"");
        $file = "$this->folder/sharedstate.prom";
        $result = $this->ctl(['metrics', $file, '--label', 'pool=w"ww']);
        self::assertSame([0, ''], [$result->status, $result->all()]);
        self::assertSame(0644, fileperms($file) & 0777);
        self::assertSame([], glob("$this->folder/.sharedstate*"), 'nothing is left beside it');
        $text = (string) file_get_contents($file);
        self::assertMatchesRegularExpression('/^# TYPE sharedstate_token_mint_count_total counter\nsharedstate_token_mint_count_total\{family="[^"]+",reason="cold",pool="w\\\\"ww"\} \d/m', $text);
        self::assertStringContainsString("\nsharedstate_store_up{pool=\"w\\\"ww\"} 1\n", $text);
        self::assertStringNotContainsString('# EOF', $text);
        if (!Promtool::isThere()) {
            self::markTestSkipped('promtool is not installed (Debian: prometheus)');
        }
        $check = Cli::command(['sh', '-c', 'promtool check metrics <"$0"', $file]);
        self::assertSame([0, ''], [$check->status, $check->all()]);
        // All that the extension has, and nothing without a type.
        $openMetrics = $this->php('return sharedstate_metrics();');
        $samples = static fn (string $text): array => array_unique(preg_replace('/[{ ].*/', '', preg_grep('/^[a-z]/', explode("\n", $text))));
        self::assertSame(array_values($samples($openMetrics)), array_values($samples($text)));
        self::assertStringNotContainsString(' untyped', $text);
    }

    /** The folder may be another user's, who puts a link to a file of root's in the place of the new one. */
    public function test_the_file_of_metrics_is_readable_by_all_without_a_chmod_of_its_name(): void
    {
        $this->mintHere();
        $file = "$this->folder/sharedstate.prom";
        $php = Ctl::command(['metrics', $file], ['host.dir' => $this->folder]);
        array_splice($php, 1, 0, ['-d', 'disable_functions=chmod']);
        $result = Cli::command(['sh', '-c', 'umask 077; exec "$0" "$@"', ...$php]);
        self::assertSame([0, ''], [$result->status, $result->errors]);
        self::assertSame(0644, fileperms($file) & 0777);
    }

    public function test_a_file_that_nobody_would_read_or_that_cannot_be_written_is_refused(): void
    {
        $this->mintHere();
        self::assertSame(2, $this->ctl(['metrics', "$this->folder/metrics.txt"])->status);
        $result = $this->ctl(['metrics', "$this->folder/nowhere/a.prom"]);
        self::assertSame(1, $result->status);
        self::assertStringContainsString('cannot be written', $result->errors);
    }

    // --- Dropping --------------------------------------------------------------------------------

    public function test_a_name_is_dropped_and_one_that_was_not_there_is_said_so(): void
    {
        $this->mintHere();
        self::assertStringStartsWith('dropped', $this->ctl(['invalidate', 'crm'])->output);
        self::assertStringStartsWith('there was nothing', $this->ctl(['invalidate', 'crm'])->output);
        self::assertStringStartsWith('there was nothing', $this->ctl(['invalidate', '--', '--all'])->output);
        self::assertSame(2, $this->ctl(['invalidate', ''])->status);
    }

    public function test_a_name_with_fingerprints_alone_says_which_and_drops_that_one(): void
    {
        $this->php("foreach ([['scope' => 'a', 'n' => 1], ['scope' => 'b', 'n' => 1], 'plain'] as \$it) {
            shared_token_get('crm', fn () => ['access_token' => 'SECRET', 'expires_in' => 3600], ['fingerprint' => \$it]); } return 0;");
        $result = $this->ctl(['invalidate', 'crm']);
        self::assertSame(1, $result->status);
        self::assertSame(3, preg_match_all('/^  crm #[0-9a-f]+, made by /m', $result->output));
        self::assertSame(1, $this->ctl(['invalidate', 'crm', '--fingerprint', '{"scope":"a","n":"1"}'])->status, '1 is not "1"');
        self::assertSame(0, $this->ctl(['invalidate', 'crm', '--fingerprint', '{"n":1,"scope":"a"}'])->status);
        self::assertSame(0, $this->ctl(['invalidate', 'crm', '--fingerprint=plain'])->status);
        self::assertSame(1, $this->fresh('crm'));
        self::assertSame(2, $this->ctl(['invalidate', 'crm', '--fingerprint', '{"n":'])->status);
        self::assertSame("1 dropped\n", $this->ctl(['invalidate', 'crm', '--any-fingerprint'])->output);
        self::assertSame(0, $this->fresh('crm'));
    }

    private function fresh(string $name): int
    {
        return count(array_filter($this->entries(), static fn (array $entry): bool => $entry['name'] === $name && $entry['freshness'] === 'fresh'));
    }

    public function test_dropping_all_drops_on_every_host_also_what_only_another_one_had_and_keeps_the_rates(): void
    {
        $redis = $this->redis('--requirepass', self::PASSWORD);
        $settings = ['redis.dsn' => $redis->dsn(), 'redis.password' => self::PASSWORD];
        [$north, $south] = [$this->host('north', $settings), $this->host('south', $settings)];
        $fingerprint = ['fingerprint' => ['scope' => 'write']];
        $both = $this->tokenOf($north);
        self::assertSame($both, $this->tokenOf($south));
        $elsewhere = [$this->tokenOf($south, 'only:south'), $this->tokenOf($south, 'crm', $fingerprint)];
        $here = $settings + ['host.dir' => "$this->folder/host-north"];
        $fetch = 'return fx_rate("EUR", "USD", fn () => ["base" => "EUR", "rates" => ["USD" => "1.25"]]);';
        self::assertSame(1.25, $this->php($fetch, $here));
        self::assertStringNotContainsString('only:south', $this->ctl(['list'], $here)->output);

        $result = $this->ctl(['invalidate', '--all', '--yes'], $here);
        self::assertSame([0, "3 dropped, here and wherever Redis' change log is followed\n"], [$result->status, $result->all()]);
        $this->until('south heard of it', fn (): bool => $this->get($south, 'token.php', ['name' => 'only:south', 'ms' => 0])->token() !== $elsewhere[0]);
        self::assertNotSame($elsewhere[1], $this->tokenOf($south, 'crm', $fingerprint));
        $fresh = $this->tokenOf($north);
        self::assertNotSame($both, $fresh);
        $this->until('south has the fresh one', fn (): bool => $this->tokenOf($south) === $fresh);
        self::assertSame(6, $this->mints->mints(), 'each once before and once after');
        self::assertSame(1.25, $this->php('return fx_rate("EUR", "USD");', $here));
    }

    public function test_dropping_all_says_how_far_back_a_change_log_reaches_that_was_cut(): void
    {
        $redis = $this->redis();
        $settings = ['redis.dsn' => $redis->dsn()];
        $this->php("return shared_token_get('crm', fn () => ['access_token' => 'SECRET', 'expires_in' => 3600]);", $settings);
        self::assertSame("1 dropped, here and wherever Redis' change log is followed\n", $this->ctl(['invalidate', '--all', '--yes'], $settings)->output);
        $redis->command('DEL', '{sharedstate}:log');
        $redis->command('EVAL', "for i = 1, 10000 do redis.call('XADD', KEYS[1], (1700000000 + i) .. '000-0', 'key', 't:-:crm', 'version', '1', 'floor', '0') end", '1', '{sharedstate}:log');
        $result = $this->ctl(['invalidate', '--all', '--yes'], $settings);
        self::assertStringContainsString('The change log reaches back to 2023-11-14 22:13:21 UTC.', $result->output);
        self::assertSame(0, $result->status);
    }

    public function test_dropping_all_without_redis_drops_here_and_does_not_pretend_to_more(): void
    {
        $redis = $this->redis();
        $settings = ['redis.dsn' => $redis->dsn()];
        $this->php("return shared_token_get('crm', fn () => ['access_token' => 'SECRET', 'expires_in' => 3600]);", $settings);
        $redis->kill();
        $result = $this->ctl(['invalidate', '--all', '--yes'], $settings);
        self::assertSame(1, $result->status);
        self::assertStringContainsString('this host has dropped 1, the others go on with theirs', $result->errors);
        self::assertSame(['gone'], array_column(json_decode($this->ctl(['list', '--json'], $settings)->output, true), 'freshness'));
    }

    public function test_dropping_all_asks_a_terminal_and_needs_yes_without_one(): void
    {
        $this->mintHere();
        self::assertSame(2, $this->ctl(['invalidate', '--all'])->status);
        self::assertSame(1, $this->fresh('crm'));
        $command = implode(' ', array_map('escapeshellarg', Ctl::command(['invalidate', '--all'], ['host.dir' => $this->folder])));
        $answer = static fn (string $word): CliResult => Cli::command(['sh', '-c', 'echo "$0" | script -qec "$1" /dev/null', $word, $command]);
        self::assertStringContainsString('nothing was dropped', $answer('no')->output);
        self::assertSame(1, $this->fresh('crm'));
        self::assertStringContainsString('1 dropped', $answer('yes')->output);
        self::assertSame(0, $this->fresh('crm'));
    }

    // --- Which application -----------------------------------------------------------------------

    public function test_settings_of_no_application_are_not_taken_for_an_idle_one(): void
    {
        $this->mintHere();
        $before = glob("$this->folder/sharedstate-*");
        $result = $this->ctl(['status'], ['prefix' => 'another']);
        self::assertSame($before, glob("$this->folder/sharedstate-*"), 'no table is left of asking');
        self::assertSame(1, $result->status);
        self::assertStringContainsString('no application of ', $result->errors);
        self::assertStringContainsString('--pool', $result->errors);
        self::assertSame('', $result->output);
    }

    public function test_with_a_pools_file_it_is_that_pools_application(): void
    {
        $redis = $this->redis('--requirepass', self::PASSWORD);
        $settings = ['prefix' => 'shop', 'redis.dsn' => $redis->dsn(), 'redis.password' => self::PASSWORD];
        $host = $this->host('north', $settings);
        $this->tokenOf($host);
        $pool = "$this->folder/north.conf";
        $result = Ctl::run(['--pool', $pool, 'list'], []);
        self::assertSame([0, ''], [$result->status, $result->errors]);
        self::assertStringContainsString('crm', $result->output);
        self::assertStringContainsString('no application', Ctl::run(['--pool', $pool, '-d', 'sharedstate.prefix=other', 'list'], [])->errors, '-d goes before the pool');

        self::assertSame(0, Ctl::run(['--pool', $pool, 'doctor'], [])->status);

        // For as long as it runs, its command line is everybody's to read.
        $watch = Process::start(Ctl::command(['--pool', $pool, 'watch', '0.2'], []), "$this->folder/watch.log");
        $this->until('it watches', fn (): bool => str_contains($watch->tail(), 'hits/s'));
        foreach (glob('/proc/[0-9]*/cmdline') as $file) {
            $line = (string) @file_get_contents($file);
            self::assertFalse(str_contains($line, 'sharedstatectl') && str_contains($line, self::PASSWORD), $line);
        }
    }

    public function test_what_a_pool_sets_for_its_pages_does_not_keep_the_command_from_working(): void
    {
        $host = $this->host('north', ['prefix' => 'shop'], ['php_admin_value[open_basedir]' => '/nowhere', 'php_admin_value[disable_functions]' => 'file_get_contents,glob']);
        $host->stop();
        $this->php("return shared_token_get('crm', fn () => ['access_token' => 'SECRET', 'expires_in' => 3600]);", ['prefix' => 'shop', 'host.dir' => "$this->folder/host-north"]);
        $result = Ctl::run(['--pool', "$this->folder/north.conf", 'list'], []);
        self::assertSame([0, ''], [$result->status, $result->errors]);
    }

    public function test_the_php_ini_of_php_fpm_counts_where_the_pools_file_is_beside_it(): void
    {
        mkdir("$this->folder/fpm/pool.d", 0777, true);
        mkdir("$this->folder/fpm/conf.d");
        file_put_contents("$this->folder/fpm/php.ini", "sharedstate.prefix = of-php-ini\nopen_basedir = /nowhere\ndisable_functions = glob\n");
        file_put_contents("$this->folder/fpm/conf.d/20-sharedstate.ini", "sharedstate.host.dir = $this->folder\n");
        file_put_contents("$this->folder/fpm/pool.d/www.conf", "[www]\nlisten = x\n");
        $this->php("return shared_token_get('of:php-ini', fn () => ['access_token' => 'SECRET', 'expires_in' => 3600]);", ['prefix' => 'of-php-ini']);
        $command = Ctl::command(['--pool', "$this->folder/fpm/pool.d/www.conf", 'list'], []);
        // Without -n, as an operator runs it.
        $result = Cli::command(array_values(array_diff($command, ['-n'])), ['PHP_INI_SCAN_DIR' => '/nowhere', 'PHPRC' => '/nowhere']);
        self::assertStringContainsString('of:php-ini', $result->output, $result->all());
        self::assertSame(0, $result->status);
    }

    public function test_of_several_pools_one_has_to_be_named(): void
    {
        file_put_contents("$this->folder/pools.conf", "[global]\nerror_log = x\n[shop]\nphp_admin_value[sharedstate.prefix] = \"\$pool\"\n"
            . "php_admin_value[sharedstate.host.dir] = $this->folder\n[crm]\nlisten = y\n");
        $this->php("return shared_token_get('of:shop', fn () => ['access_token' => 'SECRET', 'expires_in' => 3600]);", ['prefix' => 'shop']);
        $pools = ['--pool', "$this->folder/pools.conf"];
        $result = Ctl::run([...$pools, 'list'], []);
        self::assertSame(2, $result->status);
        self::assertStringContainsString('shop, crm', $result->errors);
        self::assertStringContainsString('of:shop', Ctl::run([...$pools, '--pool-name', 'shop', 'list'], [])->output);
        self::assertSame(2, Ctl::run([...$pools, '--pool-name', 'nobody', 'list'], [])->status);
        self::assertSame(1, Ctl::run(['--pool', "$this->folder/none", 'list'], [])->status);
    }

    public function test_root_becomes_the_pools_user_and_who_is_neither_is_told(): void
    {
        if (posix_geteuid() !== 0) {
            self::markTestSkipped('only root can start a pool of another user');
        }
        // Both can read what they run.
        chmod($this->folder, 0755);
        copy(Build::extension(), "$this->folder/extension.so");
        copy(Ctl::script(), "$this->folder/ctl");
        @mkdir("$this->folder/host-north");
        chown("$this->folder/host-north", 'www-data');
        chmod($this->mints->file, 0666);
        $host = $this->host('north', [], ['user' => 'www-data', 'group' => 'www-data']);
        $this->tokenOf($host);
        $command = Ctl::command(['--pool', "$this->folder/north.conf", 'list'], [], "$this->folder/extension.so", "$this->folder/ctl");
        $asRoot = Cli::command($command);
        self::assertSame([0, ''], [$asRoot->status, $asRoot->errors]);
        self::assertStringContainsString('crm', $asRoot->output);

        $asNobody = Cli::command(['setpriv', '--reuid=nobody', '--regid=nogroup', '--clear-groups', '--', ...$command]);
        self::assertSame(1, $asNobody->status);
        self::assertStringContainsString('runs as www-data', $asNobody->errors);

        $without = Ctl::command(['list'], ['host.dir' => "$this->folder/host-north"]);
        $asRoot = Cli::command($without);
        self::assertSame([1, ''], [$asRoot->status, $asRoot->output]);
        self::assertStringContainsString('those that have one: www-data', $asRoot->errors);
        self::assertCount(1, glob("$this->folder/host-north/*"), 'root has left no table behind');
    }

    // --- Being used ------------------------------------------------------------------------------

    public function test_what_cannot_be_understood_is_said_with_2_and_nothing_on_the_output(): void
    {
        foreach ([[], ['statsu'], ['status', '--jsno'], ['status', 'x'], ['--json', 'status'], ['list', 'a', 'b'], ['watch', '0'], ['watch', 'x'], ['watch', '1', '--count', '-1'],
            ['invalidate'], ['invalidate', 'a', '--fingerprint'], ['status', '--json=1'], ['metrics', '--label', 'x'], ['-d', '=1', 'status']] as $words) {
            $result = $this->ctl($words);
            self::assertSame([2, ''], [$result->status, $result->output], implode(' ', $words));
            self::assertStringStartsWith('sharedstatectl: ', $result->errors);
        }
        self::assertSame(0, $this->ctl(['--help'])->status);
    }

    public function test_without_the_extension_it_says_how_to_load_it(): void
    {
        $result = Cli::command([Build::php(), '-n', Ctl::script(), 'status']);
        self::assertSame(1, $result->status);
        self::assertStringContainsString('php -d extension=sharedstate.so', $result->errors);
    }
}
