<?php

declare(strict_types=1);

namespace SharedState\Polyfill;

use SharedState\ConfigError;

/**
 * The settings of the extension, with its defaults and checks. PHP knows no ini entry of an extension that is not
 * there, so they come from php.ini and `-d` by get_cfg_var(); `php_admin_value` of a pool cannot be seen.
 */
final class Settings
{
    /** By name without `sharedstate.`: the default, the form, and its bounds or words. */
    private const ALL = [
        'prefix' => ['sharedstate', 'prefix'],
        'redis.dsn' => ['', 'nothing'],
        'redis.connect_timeout_ms' => ['250', 'whole', 1, 60_000],
        'redis.response_timeout_ms' => ['250', 'whole', 1, 60_000],
        'redis.username' => ['', 'text'],
        'redis.password' => ['', 'text'],
        'redis.password_file' => ['', 'path'],
        'redis.tls_ca' => ['', 'path'],
        'redis.tls_server_name' => ['', 'text'],
        'redis.tls_cert' => ['', 'path'],
        'redis.tls_key' => ['', 'path'],
        'redis.pool_max' => ['8', 'whole', 1, 1024],
        'redis.pool_idle_s' => ['1', 'whole', 1, 86_400],
        'host.dir' => ['', 'path'],
        'host.memory' => ['32M', 'size', 1 << 20, 1 << 40],
        'host.slots' => ['16384', 'whole', 1, 1 << 24],
        'host.value_size' => ['16K', 'size', 1 << 10, 1 << 20],
        'max_staleness_ms' => ['1000', 'whole', 10, 600_000],
        'store_down' => ['host', 'word', 'host', 'fail'],
        'encryption_key_file' => ['', 'nothing'],
        'token.expiry_margin_s' => ['60', 'whole', 0, 86_400],
        'token.refresh_ratio' => ['0.8', 'ratio'],
        'token.lease_ms' => ['4000', 'whole', 100, 600_000],
        'token.wait_timeout_ms' => ['6000', 'whole', 100, 3_600_000],
        'token.max_mint_ms' => ['30000', 'whole', 100, 3_600_000],
        'token.failure_backoff_ms' => ['1000', 'whole', 1, 60_000],
        'fx.sources' => ['', 'text'],
        'fx.refresh_interval_s' => ['3600', 'whole', 1, 31 * 86_400],
        'fx.max_stale_s' => ['259200', 'whole', 1, 3650 * 86_400],
        'fx.max_age_s' => ['604800', 'whole', 1, 3650 * 86_400],
        'fx.max_jump_pct' => ['20', 'percent'],
        'fx.monthly_quota' => ['', 'text'],
        'fx.openexchangerates.app_id_file' => ['', 'path'],
        'fx.state_dir' => ['', 'nothing'],
        'log' => ['', 'sink'],
        'log_level' => ['warning', 'word', 'off', 'error', 'warning', 'info', 'debug'],
    ];

    /** What the polyfill would have to break its word on. */
    private const NOTHING = [
        'redis.dsn' => 'shares nothing between hosts',
        'encryption_key_file' => 'does not seal what it keeps',
        'fx.state_dir' => 'keeps no sheet on disk',
    ];

    private static ?self $current = null;

    /** @param array<string, string|int|float> $values */
    private function __construct(private readonly array $values)
    {
    }

    /** Read once per process. @throws ConfigError */
    public static function current(): self
    {
        return self::$current ??= self::read();
    }

    /** @return array<string, string> */
    public static function defaults(): array
    {
        return array_map(static fn (array $it): string => $it[0], self::ALL);
    }

    /** Seconds for what is in milliseconds. */
    public function seconds(string $name): float
    {
        return $this->values[$name] / (str_ends_with($name, '_ms') ? 1000 : 1);
    }

    public function number(string $name): float
    {
        return (float) $this->values[$name];
    }

    public function text(string $name): string
    {
        return (string) $this->values[$name];
    }

    private static function read(): self
    {
        $values = [];
        foreach (self::ALL as $name => [$default, $form]) {
            $given = get_cfg_var("sharedstate.$name");
            $given = \is_string($given) ? $given : $default;
            $values[$name] = self::value($name, $given, $form, \array_slice(self::ALL[$name], 2));
        }
        $settings = new self($values);
        $settings->check();
        return $settings;
    }

    /** @param list<int|string> $bounds */
    private static function value(string $name, string $given, string $form, array $bounds): string|int|float
    {
        $refuse = static fn (string $expected): ConfigError
            => new ConfigError("sharedstate.$name is " . Text::quoted($given, 60) . ", but must be $expected");
        switch ($form) {
            case 'whole':
                $unit = str_ends_with($name, '_ms') ? ' of milliseconds' : (str_ends_with($name, '_s') ? ' of seconds' : '');
                $fits = preg_match('/^\d{1,12}$/D', $given) === 1 && $given >= $bounds[0] && $given <= $bounds[1];
                return $fits ? (int) $given : throw $refuse("a whole number$unit from $bounds[0] to $bounds[1]");
            case 'ratio':
                $fits = is_numeric($given) && $given > 0 && $given < 1;
                return $fits ? (float) $given : throw $refuse('a number above 0 and below 1, such as 0.8');
            case 'percent':
                $fits = is_numeric($given) && $given > 0 && $given <= 100;
                return $fits ? (float) $given : throw $refuse('a percentage above 0 and at most 100, such as 20');
            case 'size':
                $shift = ['' => 0, 'K' => 10, 'M' => 20, 'G' => 30];
                $bytes = preg_match('/^(\d{1,12})([KMG]?)$/iD', $given, $part) === 1 ? $part[1] << $shift[strtoupper($part[2])] : -1;
                $fits = $bytes >= $bounds[0] && $bytes <= $bounds[1];
                return $fits ? $bytes : throw $refuse('a size such as 16K, 32M or 1G, from ' . self::size($bounds[0]) . ' to ' . self::size($bounds[1]));
            case 'word':
                $word = strtolower($given);
                return \in_array($word, $bounds, true) ? $word : throw $refuse('one of ' . implode(', ', $bounds));
            case 'path':
                $fits = $given === '' || ($given[0] === '/' && preg_match('/[[:cntrl:]]/', $given) === 0);
                return $fits ? $given : throw $refuse('an absolute path, or empty');
            case 'sink':
                $fits = \in_array($given, ['', 'stderr', 'syslog'], true) || ($given[0] === '/' && preg_match('/[[:cntrl:]]/', $given) === 0);
                return $fits ? $given : throw $refuse('an absolute path, stderr, syslog, or empty');
            case 'prefix':
                $fits = $given !== '' && \strlen($given) <= 64 && preg_match('/[[:cntrl:]\s{}]/', $given) === 0;
                return $fits ? $given : throw $refuse('1 to 64 bytes without spaces, braces and control characters');
            case 'nothing':
                $given = $name === 'redis.dsn' && $given === '' ? (string) getenv('SHAREDSTATE_REDIS_DSN') : $given;
                return $given === '' ? '' : throw self::cannot($name, $given);
            default:
                return $given;
        }
    }

    private static function cannot(string $name, string $given): ConfigError
    {
        // An address may have a password in it.
        $given = $name === 'redis.dsn' ? 'set (or SHAREDSTATE_REDIS_DSN is)' : Text::quoted($given, 60);
        return new ConfigError("sharedstate.$name is $given, but must be empty: this is the PHP polyfill, which " . self::NOTHING[$name]
            . '. Load the sharedstate extension, or remove the setting where the extension is not meant to be');
    }

    private static function size(int|string $bytes): string
    {
        return $bytes % (1 << 30) === 0 ? ($bytes >> 30) . 'G' : ($bytes % (1 << 20) === 0 ? ($bytes >> 20) . 'M' : ($bytes >> 10) . 'K');
    }

    private function check(): void
    {
        $least = $this->values['token.lease_ms'] + 1000;
        if ($least > $this->values['token.wait_timeout_ms']) {
            throw new ConfigError("sharedstate.token.wait_timeout_ms is {$this->values['token.wait_timeout_ms']}, but must be at least "
                . "sharedstate.token.lease_ms + 1000 = $least: a caller has to outwait a minter who died");
        }
        $least = 2 * $this->values['fx.refresh_interval_s'];
        foreach (['fx.max_stale_s' => 'one missed refresh must not end the rates', 'fx.max_age_s' => 'every sheet would end before it is renewed'] as $name => $why) {
            if ($this->values[$name] <= $least) {
                throw new ConfigError("sharedstate.$name is {$this->values[$name]}, but must be more than twice sharedstate.fx.refresh_interval_s = $least: $why");
            }
        }
    }
}
