<?php

/**
 * The status page: what all workers of this host have, do and wait for. One file, to be put where php-fpm serves it, in the pool
 * whose state it shall show. It changes nothing, asks Redis nothing and never has a token in its hands.
 *
 *   ?html (default)   for people; live where there is JavaScript
 *   ?json             the same for programs
 *   ?openmetrics      for Prometheus
 *
 * It is closed until one of these is set, as fastcgi_param of the web server or as env[…] of the pool; where both a password and
 * an allow-list are set, both are needed:
 *
 *   SHAREDSTATE_STATUS_PASSWORD        the password of HTTP Basic authentication; any user name
 *   SHAREDSTATE_STATUS_PASSWORD_FILE   a file with it, or better with what password_hash() makes of it
 *   SHAREDSTATE_STATUS_ALLOW           addresses and networks: 127.0.0.1, 10.0.0.0/8, ::1
 *
 * docs/OPERATIONS.md, "Status page", has the rules behind the verdict.
 */

declare(strict_types=1);

namespace SharedState\StatusPage;

use Throwable;

/** So many rows are in the page at first, and so many entries in its data; the filter finds the others. */
const ROWS = 100;
const ENTRIES = 1000;

/** So many entries are read: as many as a table has by default. */
const LOOKED_AT = 16384;

/** A mint that is under way for longer than this is worth a look. */
const SLOW_MINT_S = 10;

/** Counters that stand still while all is well. */
const ALARMS = ['wait_timeouts', 'mint_failures', 'leases_lost', 'flights_given_up', 'served_degraded', 'store_errors', 'breaker_opened',
    'rejections', 'evicted_usable', 'table_full', 'values_too_large', 'table_remaps', 'clock_jumps', 'clocks_disagreed', 'sealed_unreadable',
    'fx_refresh_failures', 'fx_quarantined', 'fx_sheet_held_back'];

/** The figures on top: title, and the counters that it adds up. */
const TILES = [
    'hits' => ['Hits', ['token_cache_hits', 'fx_cache_hits']],
    'misses' => ['Misses', ['token_cache_misses', 'fx_cache_misses']],
    'mints' => ['Mints', ['token_mint_count']],
    'waits' => ['Waits', ['waits']],
    'degraded' => ['Served degraded', ['served_degraded']],
    'rates' => ['Rates confirmed', ['fx_confirmed_age_s']],
];

const COLUMNS = ['name' => 'Name', 'trouble' => 'State', 'age' => 'Age', 'life' => '', 'refresh_at' => 'Renewal', 'usable_until' => 'Usable for', 'by' => 'By', 'version' => 'Version'];

const LEVELS = ['bad' => 'Act now', 'warn' => 'Look soon', 'well' => 'Well', 'idle' => 'Idle'];

const REASONS = ['cold', 'expired', 'refresh', 'rejected', 'evicted', 'degraded'];

function main(): void
{
    $form = isset($_GET['json']) ? 'json' : (isset($_GET['openmetrics']) ? 'openmetrics' : 'html');
    header_remove('X-Powered-By');
    header('Cache-Control: no-store');
    header('X-Content-Type-Options: nosniff');
    header('X-Frame-Options: DENY');
    header('Referrer-Policy: no-referrer');
    header('Cross-Origin-Resource-Policy: same-origin');
    if (!in_array($_SERVER['REQUEST_METHOD'] ?? 'GET', ['GET', 'HEAD'], true)) {
        header('Allow: GET, HEAD');
        refuse($form, 405, 'Only GET', 'This page shows; it has nothing to change.');
        return;
    }
    $access = new Access($_SERVER);
    if (($refusal = $access->refusal()) !== null) {
        [$status, $title, $sentence] = $refusal;
        if ($status === 401) {
            header('WWW-Authenticate: Basic realm="sharedstate", charset="UTF-8"');
        }
        refuse($form, $status, $title, $sentence);
        return;
    }
    if (!function_exists('sharedstate_status')) {
        refuse($form, 503, 'The extension is not loaded', 'This PHP (' . PHP_SAPI . ' ' . PHP_VERSION . ') does not have the extension sharedstate. Add '
            . '"extension = /path/to/libsharedstate.so" to ' . (php_ini_loaded_file() ?: 'its php.ini') . ' or to a file in its conf.d, and restart it.');
        return;
    }
    try {
        if ($form === 'openmetrics') {
            $text = function_exists('sharedstate_metrics') ? sharedstate_metrics() : throw new \RuntimeException('This sharedstate has no sharedstate_metrics().');
            header('Content-Type: application/openmetrics-text; version=1.0.0; charset=utf-8');
            echo $text;
            return;
        }
        $snapshot = snapshot(is_string($_GET['filter'] ?? null) ? $_GET['filter'] : '');
    } catch (Throwable $thrown) {
        refuse($form, 503, 'sharedstate cannot be used', get_class($thrown) . ': ' . $thrown->getMessage());
        return;
    }
    if ($form === 'json') {
        header('Content-Type: application/json');
        echo encoded($snapshot);
        return;
    }
    page($snapshot['verdict']['title'] . ' · ' . $snapshot['host'], static fn (string $nonce) => body($snapshot, $nonce));
}

// --- Who may look ---------------------------------------------------------------------------------

final class Access
{
    /** @param array<string, mixed> $server */
    public function __construct(private readonly array $server)
    {
    }

    /** @return array{int, string, string}|null status, title and sentence; null for who may look */
    public function refusal(): ?array
    {
        [$password, $file, $allow] = array_map($this->setting(...), ['PASSWORD', 'PASSWORD_FILE', 'ALLOW']);
        if ($password === null && $file === null && $allow === null) {
            return [403, 'This page is closed', 'Set SHAREDSTATE_STATUS_PASSWORD, SHAREDSTATE_STATUS_PASSWORD_FILE or SHAREDSTATE_STATUS_ALLOW '
                . '(such as "127.0.0.1, 10.0.0.0/8, ::1"), as fastcgi_param of the web server or as env[…] of the php-fpm pool, to open it.'];
        }
        if ($allow !== null && !$this->isAllowed($allow)) {
            return [403, 'This page is closed to your address', 'The address from which you come is not in SHAREDSTATE_STATUS_ALLOW.'];
        }
        if ($password === null && $file === null) {
            return null;
        }
        if ($file !== null) {
            $password = trim((string) strtok((string) @file_get_contents($file), "\n"));
            if ($password === '') {
                error_log('sharedstate status page: SHAREDSTATE_STATUS_PASSWORD_FILE names a file that cannot be read or has no first line');
                return [403, 'This page is closed', 'SHAREDSTATE_STATUS_PASSWORD_FILE names a file that cannot be read or has no first line.'];
            }
        }
        $given = $this->server['PHP_AUTH_PW'] ?? null;
        $right = is_string($given) && (password_get_info($password)['algo'] !== null
            ? password_verify($given, $password) : hash_equals($password, $given));
        return $right ? null : [401, 'A password is needed', 'Any user name, and the password of SHAREDSTATE_STATUS_PASSWORD or SHAREDSTATE_STATUS_PASSWORD_FILE.'];
    }

    /** From the web server or the environment. A request cannot set it: its headers arrive as HTTP_…. */
    private function setting(string $name): ?string
    {
        $value = $this->server["SHAREDSTATE_STATUS_$name"] ?? getenv("SHAREDSTATE_STATUS_$name");
        return is_string($value) && trim($value) !== '' ? trim($value) : null;
    }

    /** By the address of the connection alone: what X-Forwarded-For says, anybody can say. */
    private function isAllowed(string $list): bool
    {
        $address = self::packed((string) ($this->server['REMOTE_ADDR'] ?? ''));
        $allowed = false;
        foreach (preg_split('/[\s,]+/', $list, -1, PREG_SPLIT_NO_EMPTY) as $network) {
            [$base, $bits] = explode('/', $network, 2) + [1 => null];
            $wide = str_contains($base, ':');
            $packed = self::packed($base);
            if ($packed === null || ($bits !== null && (preg_match('/^\d{1,3}$/D', $bits) !== 1 || (int) $bits > ($wide ? 128 : 32)))) {
                error_log("sharedstate status page: \"$network\" in SHAREDSTATE_STATUS_ALLOW is neither an address nor a network such as 10.0.0.0/8");
                continue;
            }
            $bits = $bits === null ? 128 : (int) $bits + ($wide ? 0 : 96);
            $allowed = $allowed || ($address !== null && self::begins($address, $packed, $bits));
        }
        return $allowed;
    }

    /** As 16 bytes: IPv4 in the form in which IPv6 has it, so that ::ffff:10.0.0.1 is 10.0.0.1. */
    private static function packed(string $address): ?string
    {
        $packed = @inet_pton($address);
        return $packed === false ? null : (strlen($packed) === 4 ? str_repeat("\0", 10) . "\xff\xff$packed" : $packed);
    }

    private static function begins(string $address, string $network, int $bits): bool
    {
        [$bytes, $rest] = [intdiv($bits, 8), $bits % 8];
        $mask = 0xff << (8 - $rest) & 0xff;
        return substr($address, 0, $bytes) === substr($network, 0, $bytes)
            && ($rest === 0 || (ord($address[$bytes]) & $mask) === (ord($network[$bytes]) & $mask));
    }
}

/** Says no, in the form that was asked for. */
function refuse(string $form, int $status, string $title, string $sentence): void
{
    http_response_code($status);
    if ($form === 'json') {
        header('Content-Type: application/json');
        echo encoded(['error' => ['status' => $status, 'title' => $title, 'message' => legible($sentence)]]);
    } elseif ($form === 'openmetrics') {
        header('Content-Type: text/plain; charset=utf-8');
        echo "$title. ", legible($sentence), "\n";
    } else {
        page($title, static function () use ($title, $sentence): void {
            echo '<main class=alone><header><b>sharedstate</b></header><section class="verdict bad"><h1>', text($title), '</h1><p>', text(legible($sentence)), '</p></section></main>';
        });
    }
}

// --- What there is to see -------------------------------------------------------------------------

/**
 * Everything the page shows, as data: the JSON form is this.
 *
 * @return array<string, mixed>
 */
function snapshot(string $filter): array
{
    $at = microtime(true);
    $status = sharedstate_status();
    $metrics = series(function_exists('sharedstate_metrics') ? sharedstate_metrics() : '');
    $entries = array_map(entry(...), function_exists('sharedstate_entries') ? sharedstate_entries(LOOKED_AT) : []);
    $entries = array_values(array_filter($entries, static fn (array $entry): bool => $entry['kind'] !== 'quota'));
    $store = store($status, $metrics);
    $interval = (int) ($metrics['sharedstate_fx_refresh_interval_seconds'][0][1] ?? 3600);
    $findings = findings($status, $store, $entries, $interval, $at);
    $found = $filter === '' ? $entries : array_values(array_filter($entries, static fn (array $entry): bool => stripos($entry['name'], $filter) !== false));
    usort($found, static fn (array $a, array $b): int => [$b['trouble'], $a['name'], $a['id']] <=> [$a['trouble'], $b['name'], $b['id']]);
    return [
        'at' => round($at, 3),
        'host' => legible((string) gethostname()),
        'php' => PHP_SAPI . ' ' . PHP_VERSION,
        'verdict' => $findings[0] ?? calm($store, $entries),
        'findings' => $findings,
        'status' => array_map(static fn (mixed $value): mixed => is_string($value) ? legible($value) : $value, $status),
        'store' => $store,
        'families' => families($metrics),
        'provider_calls' => (int) array_sum(array_column($metrics['sharedstate_fx_provider_calls_total'] ?? [], 1)),
        'plan' => plan($entries, $interval),
        'filter' => legible($filter),
        'entries_total' => count($entries),
        'entries_found' => count($found),
        'entries' => array_map(static fn (array $entry): array => $entry + ['shown' => cells($entry, $at)], array_slice($found, 0, ENTRIES)),
        'facts' => ['Rates' => rateFacts($entries, $interval, $at), 'Redis' => redisFacts($status, $store, $entries !== []), 'Host table' => tableFacts($status)],
    ];
}

/** An entry with what the page needs: an id, and a name that can be shown. */
function entry(array $entry): array
{
    $id = substr(hash('sha256', serialize([$entry['kind'] ?? '', $entry['name'] ?? '', $entry['fingerprint'] ?? null])), 0, 16);
    array_walk_recursive($entry, static function (mixed &$value): void {
        $value = is_string($value) ? legible($value) : $value;
    });
    $entry += ['kind' => 'token', 'name' => '', 'fingerprint' => null, 'version' => null, 'freshness' => null, 'minted_at' => null, 'refresh_at' => null,
        'usable_until' => null, 'expires_at' => null, 'age' => null, 'source' => null, 'minted_by' => null, 'unsynced' => false, 'flight' => null, 'backoff' => null, 'rates' => null];
    $usable = in_array($entry['freshness'], ['fresh', 'refresh_due', 'stale'], true);
    $trouble = $entry['backoff'] !== null ? ($usable ? 3 : 4) : ($entry['freshness'] === 'stale' ? 2 : ($entry['flight'] !== null ? 1 : 0));
    return ['id' => $id] + $entry + ['usable' => $usable, 'trouble' => $trouble];
}

/** What the entries need by themselves: each is renewed once in the time from its mint to refresh_at. */
function plan(array $entries, int $interval): array
{
    $perSecond = 0.0;
    $tokens = 0;
    foreach ($entries as $entry) {
        if ($entry['kind'] === 'token') {
            $tokens++;
            $perSecond += $entry['usable'] ? 1 / max(1, $entry['refresh_at'] - $entry['minted_at']) : 0;
        }
    }
    return ['tokens' => $tokens, 'mints_per_s' => round($perSecond, 6), 'sheets' => count($entries) - $tokens, 'refresh_interval_s' => $interval];
}

/**
 * What a look at this moment shows, worst first. What takes two looks (mints above lifetimes, fetches above plan) is
 * in the page's script.
 *
 * @return list<array{level: 'bad'|'warn', code: string, title: string, why: string, do: string, see: string}>
 */
function findings(array $status, array $store, array $entries, int $interval, float $at): array
{
    $findings = [];
    $find = static function (string $level, string $code, string $title, string $why, string $do, string $see) use (&$findings): void {
        $findings[] = compact('level', 'code', 'title', 'why', 'do', 'see');
    };
    $of = static fn (callable $wanted): array => array_values(array_filter($entries, $wanted));
    $first = static fn (array $some): string => implode(', ', array_column(array_slice($some, 0, 3), 'name')) . (count($some) > 3 ? ' and ' . (count($some) - 3) . ' more' : '');
    $failing = static fn (array $entry): bool => $entry['backoff'] !== null;

    if ($refused = $of(static fn (array $entry): bool => $failing($entry) && !$entry['usable'] && $entry['kind'] === 'token')) {
        $find('bad', 'mint_fails', 'No token for ' . $first($refused), $refused[0]['backoff']['reason'] ?? '',
            'Callers get MintFailed until the pause is over. Look at the issuer: what it answered is in the log.', 'mint_failures');
    }
    foreach ($of(static fn (array $entry): bool => $entry['kind'] === 'rates') as $sheet) {
        $age = duration(confirmedAge($sheet, $at));
        $source = ($sheet['rates']['source'] ?? '') === '' ? '' : ", source {$sheet['rates']['source']}";
        if (!$sheet['usable'] && ($sheet['version'] ?? 0) > 0) {
            $find('bad', 'rates_gone', "The rates are too old to be served: $age$source", "Sheet $sheet[name] was last confirmed $age ago.",
                'Callers get RateUnavailable. Look at the source: the log has what it answered.', 'fx_refresh_failures');
        } elseif ($sheet['freshness'] === 'stale') {
            $find('warn', 'rates_stale', "The rates are $age old$source", "Sheet $sheet[name] should be confirmed every " . duration($interval) . '; it is served for '
                . duration($sheet['usable_until'] - $at) . ' more.', 'Look at the source: the log has what it answered.', 'fx_confirmed_age_s');
        }
        if ($sheet['rates']['held_back'] ?? false) {
            $find('warn', 'rates_held_back', 'A rate sheet looks wrong and is held back', "Sheet $sheet[name]$source. The last good one is served.",
                'Look at the log line: a devaluation is confirmed by the next sheet, a fault of the source is not.', 'fx_quarantined');
        }
    }
    if ($store['up'] === false) {
        $find('warn', 'redis_down', 'Redis cannot be asked', 'Usable entries are served; what is missing is minted once on each host. ' . ($status['store_last_failure'] ?? ''),
            'See whether Redis runs and can be reached from here. Nothing has to be done on the hosts: they give back what they have.', 'breaker_opened');
    }
    if ($late = $of(static fn (array $entry): bool => $failing($entry) && $entry['usable'] && $entry['kind'] === 'token')) {
        $soonest = min(array_column($late, 'usable_until')) - $at;
        $find('warn', 'renewal_fails', 'Renewal fails: ' . $first($late), $late[0]['backoff']['reason'] ?? '',
            'The old token is served for ' . duration($soonest) . ' more. Look at the issuer before that.', 'mint_failures');
    }
    if ($slow = $of(static fn (array $entry): bool => $at - ($entry['flight']['since'] ?? $at) > SLOW_MINT_S)) {
        $find('warn', 'slow_mint', 'A mint takes long: ' . $first($slow), 'Under way for ' . duration($at - $slow[0]['flight']['since']) . '.',
            'The issuer is slow or hangs. The callable should have a timeout of its own.', 'waits');
    }
    if (str_starts_with((string) ($status['host_table'] ?? ''), 'none')) {
        $find('warn', 'no_table', 'There is no host table: each process asks Redis alone', (string) $status['host_table'],
            'Make the folder usable that is named there, or set sharedstate.host.dir.', 'table_full');
    }
    if ($status['polyfill'] ?? false) {
        $find('warn', 'polyfill', 'This is the polyfill: nothing is shared beyond this ' . (function_exists('apcu_enabled') && apcu_enabled() ? 'host' : 'process'),
            'The extension is not loaded, and the PHP library stands in for it.', 'In production, load the extension.', 'First look');
    }
    usort($findings, static fn (array $a, array $b): int => ($b['level'] === 'bad') <=> ($a['level'] === 'bad'));
    return $findings;
}

/** When there is nothing to find. */
function calm(array $store, array $entries): array
{
    $count = static fn (string $kind): int => count(array_filter($entries, static fn (array $entry): bool => $entry['kind'] === $kind && $entry['usable']));
    [$tokens, $sheets] = [$count('token'), $count('rates')];
    if ($tokens + $sheets === 0) {
        return ['level' => 'idle', 'code' => 'nothing_yet', 'title' => 'Nothing here yet', 'why' => 'This host holds no token and no rate that can be served.',
            'do' => 'If pages use sharedstate: are this pool, its user and its prefix theirs?', 'see' => 'First look'];
    }
    $parts = [$tokens === 0 ? null : counted($tokens, 'token'), $sheets === 0 ? null : counted($sheets, 'rate sheet')];
    return ['level' => 'well', 'code' => 'well', 'title' => 'All well', 'why' => implode(' and ', array_filter($parts)) . ' can be served'
        . ($store['distributed'] ? ', and Redis answers.' : ', to this host alone: there is no Redis.'), 'do' => '', 'see' => 'First look'];
}

/** How this host and its Redis get on; null is unknown. */
function store(array $status, array $metrics): array
{
    $flag = static fn (string $name): ?bool => isset($metrics["sharedstate_$name"][0]) ? $metrics["sharedstate_$name"][0][1] > 0 : null;
    $pause = $status['redis_asked_again_in_ms'] ?? null;
    return ['distributed' => $pause !== null, 'up' => $flag('store_up') === false || $pause > 0 ? false : $flag('store_up'), 'asked_again_in_ms' => $pause,
        'coherent' => $flag('coherent'), 'led' => $flag('leader'), 'last_failure' => legible((string) ($status['store_last_failure'] ?? ''))];
}

/** What OpenMetrics text says, by series: lists of labels and value. @return array<string, list<array{array<string, string>, float}>> */
function series(string $text): array
{
    $series = [];
    preg_match_all('/^(\w+)(?:\{(.*)\})? (\S+)$/m', $text, $lines, PREG_SET_ORDER);
    foreach ($lines as [, $name, $labels, $value]) {
        preg_match_all('/(\w+)="((?:[^"\\\\]|\\\\.)*)"/', $labels, $pairs, PREG_SET_ORDER);
        $unescaped = array_map(static fn (string $text): string => strtr($text, ['\\\\' => '\\', '\\"' => '"', '\\n' => "\n"]), array_column($pairs, 2, 1));
        $series[$name][] = [$unescaped, (float) $value];
    }
    return $series;
}

/** Tokens by family: hits, misses and mints since the table was made, and why they were minted. @return list<array<string, mixed>> */
function families(array $metrics): array
{
    $families = [];
    $add = static function (string $series, string $key, ?string $by = null) use ($metrics, &$families): void {
        foreach ($metrics["sharedstate_$series"] ?? [] as [$labels, $value]) {
            $families[$labels['family']] ??= ['family' => legible($labels['family']), 'usable' => 0, 'hits' => 0, 'misses' => 0, 'mints' => [], 'failures' => 0, 'mint_s' => 0, 'took' => 0];
            if ($by === null) {
                $families[$labels['family']][$key] += $value;
            } else {
                $families[$labels['family']][$key][$labels[$by]] = (int) $value;
            }
        }
    };
    $add('tokens_usable', 'usable');
    $add('token_cache_hits_total', 'hits');
    $add('token_cache_misses_total', 'misses');
    $add('token_mint_count_total', 'mints', 'reason');
    $add('mint_failures_total', 'failures');
    $add('mint_duration_seconds_sum', 'mint_s');
    $add('mint_duration_seconds_count', 'took');
    uasort($families, static fn (array $a, array $b): int => [array_sum($b['mints']), $a['family']] <=> [array_sum($a['mints']), $b['family']]);
    return array_values(array_map(static fn (array $family): array => ['mean_mint_s' => $family['took'] > 0 ? round($family['mint_s'] / $family['took'], 3) : null]
        + array_map(static fn (mixed $value): mixed => is_float($value) ? (int) $value : $value, array_diff_key($family, ['mint_s' => 0, 'took' => 0])), $families));
}

/** Seconds since a source last said that the sheet is its newest. */
function confirmedAge(array $sheet, float $at): int
{
    return max(0, (int) ($at - ($sheet['rates']['confirmed_at'] ?? $sheet['minted_at'] ?? $at)));
}

// --- Words ----------------------------------------------------------------------------------------

/** Any bytes as text that can be read and cannot mislead: what is not UTF-8, is invisible or turns the direction is spelt out. */
function legible(string $bytes): string
{
    $character = '[\x00-\x7f]|[\xc2-\xdf][\x80-\xbf]|\xe0[\xa0-\xbf][\x80-\xbf]|[\xe1-\xec\xee\xef][\x80-\xbf]{2}|\xed[\x80-\x9f][\x80-\xbf]'
        . '|\xf0[\x90-\xbf][\x80-\xbf]{2}|[\xf1-\xf3][\x80-\xbf]{3}|\xf4[\x80-\x8f][\x80-\xbf]{2}';
    $utf8 = preg_replace_callback("/(?:$character)++(*SKIP)(*FAIL)|./s", static fn (array $byte): string => sprintf('\x%02X', ord($byte[0])), $bytes) ?? '';
    return (string) preg_replace_callback('/[\p{Cc}\p{Cf}\p{Co}\p{Cn}\p{Zl}\p{Zp}]|(?! )\p{Zs}/u',
        static fn (array $one): string => sprintf('\u{%X}', codepoint($one[0])), $utf8);
}

function codepoint(string $character): int
{
    $bytes = array_values(unpack('C*', $character));
    $value = $bytes[0] & (count($bytes) === 1 ? 0x7f : 0xff >> count($bytes) + 1);
    return array_reduce(array_slice($bytes, 1), static fn (int $value, int $byte): int => $value << 6 | $byte & 0x3f, $value);
}

function encoded(mixed $data): string
{
    return json_encode($data, JSON_THROW_ON_ERROR | JSON_INVALID_UTF8_SUBSTITUTE | JSON_HEX_TAG | JSON_HEX_AMP | JSON_HEX_APOS | JSON_HEX_QUOT | JSON_UNESCAPED_SLASHES);
}

function text(string|int|float|null $text): string
{
    return htmlspecialchars((string) $text, ENT_QUOTES | ENT_SUBSTITUTE | ENT_HTML5, 'UTF-8');
}

function duration(float|int $seconds): string
{
    $seconds = max(0, (int) $seconds);
    return match (true) {
        $seconds < 120 => "$seconds s",
        $seconds < 7200 => intdiv($seconds, 60) . ' min',
        $seconds < 172800 => intdiv($seconds, 3600) . ' h',
        default => intdiv($seconds, 86400) . ' days',
    };
}

function number(int|float $number): string
{
    return number_format((float) $number);
}

function counted(int $number, string $noun, ?string $plural = null): string
{
    return number($number) . ' ' . ($number === 1 ? $noun : $plural ?? "{$noun}s");
}

function bytes(int|float $bytes): string
{
    return $bytes < 1 << 20 ? round($bytes / 1024) . ' KB' : number_format($bytes / (1 << 20), 1) . ' MB';
}

/** What the columns of the table say of an entry. */
function cells(array $entry, float $at): array
{
    [$flight, $backoff, $by] = [$entry['flight'], $entry['backoff'], $entry['minted_by'] ?? []];
    $notes = [];
    if ($flight !== null) {
        $notes[] = 'in flight for ' . duration($at - $flight['since']) . (isset($flight['pid']) ? ", process $flight[pid]" : '');
    }
    if ($backoff !== null) {
        $notes[] = 'pause of ' . duration($backoff['until'] - $at) . ' after ' . counted((int) ($backoff['failures'] ?? 1), 'failure') . ': ' . ($backoff['reason'] ?? '');
    }
    if ($entry['unsynced']) {
        $notes[] = 'not in Redis yet';
    }
    if ($entry['rates']['held_back'] ?? false) {
        $notes[] = 'a newer sheet is held back';
    }
    $states = ['fresh' => 'fresh', 'refresh_due' => 'renewal due', 'stale' => 'stale', 'gone' => ($entry['version'] ?? 0) === 0 ? 'none' : 'gone'];
    $origin = array_filter([$entry['rates']['source'] ?? '', $by['host'] ?? '', basename($by['script'] ?? '')], static fn (string $part): bool => $part !== '');
    return [
        'state' => $states[$entry['freshness'] ?? 'gone'] ?? (string) $entry['freshness'],
        'note' => implode('; ', $notes),
        'age' => $entry['minted_at'] === null ? '' : duration($at - ($entry['rates']['confirmed_at'] ?? $entry['minted_at'])),
        'renewal' => !$entry['usable'] ? '' : ($entry['refresh_at'] > $at ? 'in ' . duration($entry['refresh_at'] - $at) : 'due'),
        'left' => $entry['usable'] ? duration($entry['usable_until'] - $at) : '',
        'by' => implode(' · ', $origin),
        'by_in_full' => implode(' · ', array_filter([$by['host'] ?? '', $by['sapi'] ?? '', $by['script'] ?? '', $entry['source'] ?? ''])),
    ];
}

/** @return list<array{string, string, 2?: string}> label, text, and "warn" where it should be looked at */
function rateFacts(array $entries, int $interval, float $at): array
{
    $facts = [];
    $sheets = array_filter($entries, static fn (array $entry): bool => $entry['kind'] === 'rates');
    foreach (array_slice($sheets, 0, 3) as $sheet) {
        $rates = $sheet['rates'] ?? [];
        $facts[] = ['sheet', $sheet['name'] . (isset($rates['base']) ? ", base $rates[base], " . counted($rates['currencies'] ?? 0, 'currency', 'currencies') : '')];
        $facts[] = ['source', (string) ($rates['source'] ?? $sheet['source'])];
        $facts[] = ['confirmed', duration(confirmedAge($sheet, $at)) . ' ago, every ' . duration($interval), ...($sheet['freshness'] === 'stale' ? ['warn'] : [])];
        if (isset($rates['as_of'])) {
            $facts[] = ['as of', gmdate('D j M H:i', $rates['as_of']) . ' UTC, ' . duration($at - $rates['as_of']) . ' ago'];
        }
        $facts[] = ['served', $sheet['usable'] ? 'for ' . duration($sheet['usable_until'] - $at) . ' more, if nothing confirms it' : 'no longer', ...($sheet['usable'] ? [] : ['warn'])];
        if ($rates['held_back'] ?? false) {
            $facts[] = ['held back', 'a newer sheet that looks wrong', 'warn'];
        }
    }
    return $facts ?: [['sheet', 'none']];
}

/** @param bool $used by names: without any, nobody has a reason to follow the log */
function redisFacts(array $status, array $store, bool $used): array
{
    if (!$store['distributed']) {
        return [['store', (string) ($status['store'] ?? 'unknown')]];
    }
    $count = static fn (string $name): int => (int) ($status[$name] ?? 0);
    return array_values(array_filter([
        ['address', (string) ($status['store'] ?? 'unknown')],
        $store['up'] === false ? ['state', 'cannot be asked' . ($store['asked_again_in_ms'] > 0 ? ", again in $store[asked_again_in_ms] ms" : ''), 'warn'] : ['state', 'answers'],
        $store['last_failure'] === '' ? null : ['last failure', $store['last_failure'], 'warn'],
        $store['led'] === null ? null : ['change log', $store['led'] ? 'followed by a process of this host' : 'followed by nobody here', ...($store['led'] || !$used ? [] : ['warn'])],
        $store['coherent'] === null || !$used ? null : ['this host', $store['coherent'] ? 'has the newest of everything' : 'may be behind: entries are confirmed one by one', ...($store['coherent'] ? [] : ['warn'])],
        ['breaker', 'opened ' . counted($count('breaker_opened'), 'time') . ', ' . counted($count('store_errors'), 'error')],
        ['commands', number($count('redis_commands')) . ' sent, ' . counted($count('changes_heard'), 'change') . ' heard'],
    ]));
}

function tableFacts(array $status): array
{
    $count = static fn (string $name): int => (int) ($status[$name] ?? 0);
    $facts = [];
    if (isset($status['host_slots'])) {
        $facts[] = ['slots', number($count('host_slots_used')) . ' of ' . number($count('host_slots'))];
        $facts[] = ['memory', bytes($count('host_memory_used')) . ' of ' . bytes($count('host_memory'))];
    }
    $lost = $count('evicted_usable') + $count('table_full');
    $facts[] = ['evicted', $lost === 0 ? 'nothing usable' : counted($count('evicted_usable'), 'usable entry', 'usable entries') . ', ' . counted($count('table_full'), 'time') . ' full', ...($lost === 0 ? [] : ['warn'])];
    $facts[] = ['processes', counted($count('processes_attached'), 'has', 'have') . ' come to it'];
    $facts[] = ['values', ($status['values_sealed'] ?? 'no') === 'no' ? 'in clear' : "sealed $status[values_sealed]"];
    $facts[] = ['file', (string) ($status['host_table'] ?? 'unknown')];
    return $facts;
}

// --- The page -------------------------------------------------------------------------------------

/** @param callable(string): void $body is given the nonce */
function page(string $title, callable $body): void
{
    $nonce = base64_encode(random_bytes(18));
    header('Content-Type: text/html; charset=utf-8');
    header("Content-Security-Policy: default-src 'none'; script-src 'nonce-$nonce'; style-src 'nonce-$nonce'; connect-src 'self'; img-src data:; "
        . "form-action 'self'; base-uri 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'");
    echo '<!doctype html><html lang=en><head><meta charset=utf-8><title>', text($title), '</title>',
        '<meta name=viewport content="width=device-width, initial-scale=1"><meta name=robots content=noindex><meta name=color-scheme content="light dark">',
        '<link rel=icon href="data:,"><style nonce="', $nonce, '">', STYLE, '</style></head><body>';
    $body($nonce);
    echo '</body></html>';
}

function body(array $snapshot, string $nonce): void
{
    echo '<header><b>sharedstate</b><span>', text($snapshot['status']['version'] ?? ''), '</span><span class=host>', text($snapshot['host']), '</span><span>', text($snapshot['php']),
        '</span><button id=live type=button disabled>', gmdate('H:i:s', (int) $snapshot['at']), ' UTC</button></header><main>';
    verdict($snapshot['verdict'], array_slice($snapshot['findings'], 1));
    tiles($snapshot['status']);
    echo '<div class=facts>';
    foreach ($snapshot['facts'] as $title => $facts) {
        facts($title, $facts);
    }
    echo '</div>';
    names($snapshot);
    byFamily($snapshot['families']);
    counters($snapshot['status']);
    echo '</main><footer>Counters are of this host, over all its workers, since its table was made. docs/OPERATIONS.md says what each of them means and what to do. ',
        '<a href="?json">JSON</a> <a href="?openmetrics">OpenMetrics</a></footer>',
        '<script type="application/json" id=data>', encoded($snapshot), '</script><script nonce="', $nonce, '">', SCRIPT, '</script>';
}

function verdict(array $verdict, array $others): void
{
    echo '<section id=verdict class="verdict ', text($verdict['level']), '" role=status><small>', LEVELS[$verdict['level']], '</small><h1>', text($verdict['title']), '</h1><p>',
        text($verdict['why']), '</p><p class=do>', text($verdict['do']), $verdict['do'] === '' ? '' : ' <code>' . text($verdict['see']) . '</code>', '</p><ul>';
    foreach ($others as $finding) {
        echo '<li class=', text($finding['level']), '><b>', text($finding['title']), '</b> ', text("$finding[why] $finding[do]"), ' <code>', text($finding['see']), '</code></li>';
    }
    echo '</ul></section>';
}

function tiles(array $status): void
{
    echo '<section class=tiles aria-label="Over all workers of this host">';
    foreach (TILES as $id => [$title, $keys]) {
        $value = $id !== 'rates' ? number(array_sum(array_intersect_key($status, array_flip($keys))))
            : (isset($status['fx_confirmed_age_s']) ? duration($status['fx_confirmed_age_s']) : 'none');
        echo "<article data-tile=$id><h2>$title</h2><p><b>", text($value), '</b> <span>', $id === 'rates' ? ($value === 'none' ? '' : 'ago') : 'in all', '</span></p>',
            '<svg viewBox="0 0 300 48" preserveAspectRatio=none aria-hidden=true></svg><small>&nbsp;</small></article>';
    }
    echo '</section>';
}

function facts(string $title, array $facts): void
{
    echo '<section data-facts="', text($title), '"><h2>', text($title), '</h2><dl>';
    foreach ($facts as $fact) {
        echo '<dt>', text($fact[0]), '</dt><dd', isset($fact[2]) ? ' class=warn' : '', '>', text($fact[1]), '</dd>';
    }
    echo '</dl></section>';
}

function names(array $snapshot): void
{
    echo '<section id=names><div class=head><h2>Names</h2><form role=search><input type=search name=filter id=filter placeholder=Filter aria-label="Filter names" maxlength=200 value="', text($snapshot['filter']),
        '"></form><span id=count>', text(number($snapshot['entries_found']) . ' of ' . number($snapshot['entries_total'])), '</span></div><div class=wide><table><thead><tr>';
    foreach (COLUMNS as $key => $title) {
        echo "<th scope=col data-sort=$key>", $title === '' ? '<span class=hidden>Life</span>' : $title, '</th>';
    }
    echo '</tr></thead><tbody>';
    foreach (array_slice($snapshot['entries'], 0, ROWS) as $entry) {
        $shown = $entry['shown'];
        echo '<tr class="', $entry['trouble'] > 3 ? 'bad' : ($entry['trouble'] > 1 ? 'warn' : ''), '"><th scope=row><bdi title="', text($entry['name']), '">', text($entry['name']), '</bdi>',
            $entry['kind'] === 'token' ? '' : ' <i>' . text($entry['kind']) . '</i>', $entry['fingerprint'] === null ? '' : ' <i>' . text(substr($entry['fingerprint'], 0, 8)) . '</i>',
            '</th><td class="state ', text($entry['freshness']), '">', text($shown['state']), $shown['note'] === '' ? '' : '<em>' . text($shown['note']) . '</em>', '</td><td>', text($shown['age']),
            '</td><td>', life($entry, $snapshot['at']), '</td><td>', text($shown['renewal']), '</td><td>', text($shown['left']),
            '</td><td class=by title="', text($shown['by_in_full']), '">', text($shown['by']), '</td><td class=version>', text($entry['version']), '</td></tr>';
    }
    $more = $snapshot['entries_found'] - ROWS;
    echo '</tbody></table></div><p id=more>', $more > 0 ? text('and ' . number($more) . ' more: filter') : '', '</p></section>';
}

/** From mint to expiry: what is over, and the instants of renewal and of the last use. */
function life(array $entry, float $at): string
{
    // How long a sheet could live is no news: until when it is served, is.
    $whole = ($entry[$entry['kind'] === 'rates' ? 'usable_until' : 'expires_at'] ?? 0) - ($entry['minted_at'] ?? 0);
    if ($whole <= 0) {
        return '';
    }
    $x = static fn (float|int|null $instant): string => (string) round(100 * min(1, max(0, ($instant - $entry['minted_at']) / $whole)), 1);
    return "<svg class=life viewBox=\"0 0 100 8\" preserveAspectRatio=none aria-hidden=true><rect width=100 y=3 height=2 class=whole /><rect width={$x($at)} y=2 height=4 class=lived />"
        . "<rect x={$x($entry['refresh_at'])} width=1 height=8 class=due /><rect x={$x($entry['usable_until'])} width=1 height=8 class=end /></svg>";
}

function byFamily(array $families): void
{
    echo '<section id=families><h2>Why tokens were minted, by family</h2><div class=wide><table><thead><tr><th scope=col>Family</th><th scope=col>Usable</th><th scope=col>Hits</th><th scope=col>Misses</th><th scope=col>',
        implode('</th><th scope=col>', array_map('ucfirst', REASONS)), '</th><th scope=col>Failed</th><th scope=col>A mint takes</th></tr></thead><tbody>';
    foreach ($families as $family) {
        $numbers = [$family['usable'], $family['hits'], $family['misses'], ...array_map(static fn (string $reason): int => $family['mints'][$reason] ?? 0, REASONS), $family['failures']];
        echo '<tr><th scope=row><bdi>', text($family['family']), '</bdi></th>', implode('', array_map(static fn (int $number): string => '<td' . ($number === 0 ? ' class=zero' : '') . '>' . number($number) . '</td>', $numbers)),
            '<td>', $family['mean_mint_s'] === null ? '' : text($family['mean_mint_s'] . ' s'), '</td></tr>';
    }
    echo '</tbody></table></div></section>';
}

function counters(array $status): void
{
    echo '<section id=counters><h2>All numbers</h2><ul>';
    foreach ($status as $name => $value) {
        if (is_int($value)) {
            [$alarm, $class] = [in_array($name, ALARMS, true), $value === 0 ? 'zero' : 'some'];
            echo '<li data-counter="', text($name), '" class="', $class, $alarm ? ' alarm' : '', '"><code>', text($name), '</code> <b>', number($value), '</b> <span></span></li>';
        }
    }
    echo '</ul></section>';
}

const STYLE = <<<'CSS'
:root { color-scheme: light dark; --paper: #fbfaf7; --card: #fff; --ink: #1d2126; --soft: #5d646d; --line: #e4e1da; --mark: #2b6a8f; --wash: #dbe8ef;
  --well: #2c6e49; --warn: #8a5a00; --bad: #b3261e; --well-wash: #e9f3ec; --warn-wash: #fbf1da; --bad-wash: #fbe7e4; }
@media (prefers-color-scheme: dark) { :root { --paper: #121518; --card: #191d21; --ink: #e7e4de; --soft: #9aa2ab; --line: #2b3036; --mark: #7cb8da; --wash: #20384a;
  --well: #7fc79b; --warn: #e6b450; --bad: #ff8a80; --well-wash: #15261c; --warn-wash: #2b220f; --bad-wash: #331816; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1240px; padding: 0 20px 40px; background: var(--paper); color: var(--ink); font: 14px/1.45 system-ui, -apple-system, "Segoe UI", sans-serif; font-variant-numeric: tabular-nums; }
header { display: flex; flex-wrap: wrap; gap: 4px 14px; align-items: baseline; padding: 16px 0 12px; color: var(--soft); }
header b { color: var(--ink); letter-spacing: -.01em; }
header .host { margin-left: auto; color: var(--ink); }
button { font: inherit; color: inherit; background: none; border: 0; padding: 0; cursor: pointer; text-align: inherit; }
button:disabled { cursor: default; }
:focus-visible { outline: 2px solid var(--mark); outline-offset: 2px; }
#live.on::before { content: "● "; color: var(--well); }
#live.off::before { content: "‖ "; }
#live.lost { color: var(--bad); }
h1, h2, p, ul, dl, dd, form { margin: 0; padding: 0; }
h2 { font-size: 13px; font-weight: 600; }
small, footer, dt, th { color: var(--soft); font-size: 12px; }
code { font: 12px/1.4 ui-monospace, SFMono-Regular, Menlo, monospace; color: var(--soft); }
.verdict { padding: 16px 20px 18px; border-left: 6px solid var(--soft); background: var(--card); border-radius: 3px; }
.verdict small { text-transform: uppercase; letter-spacing: .08em; font-weight: 600; }
.verdict h1 { font-size: 27px; line-height: 1.2; font-weight: 600; letter-spacing: -.015em; margin: 2px 0 6px; overflow-wrap: anywhere; }
.verdict p, .verdict li { max-width: 100ch; overflow-wrap: anywhere; }
.verdict .do:not(:empty) { margin-top: 2px; }
.verdict.well { border-color: var(--well); background: var(--well-wash); } .verdict.well small { color: var(--well); }
.verdict.warn { border-color: var(--warn); background: var(--warn-wash); } .verdict.warn small, li.warn > b:first-child { color: var(--warn); }
.verdict.bad { border-color: var(--bad); background: var(--bad-wash); } .verdict.bad small, li.bad > b:first-child { color: var(--bad); }
.verdict ul { list-style: none; } .verdict li { margin-top: 10px; padding-top: 10px; border-top: 1px solid var(--line); }
.alone { padding-top: 8vh; max-width: 760px; margin: 0 auto; }
.tiles { display: grid; grid-template-columns: repeat(6, 1fr); gap: 1px; margin: 16px 0; background: var(--line); border: 1px solid var(--line); border-radius: 3px; overflow: hidden; }
.tiles article { background: var(--card); padding: 12px 14px 8px; min-width: 0; }
.tiles h2 { color: var(--soft); font-weight: 500; }
.tiles p { white-space: nowrap; overflow: hidden; text-overflow: ellipsis; color: var(--soft); font-size: 12px; }
.tiles b { font-size: 22px; font-weight: 600; letter-spacing: -.02em; color: var(--ink); }
.tiles svg { display: block; width: 100%; height: 48px; margin: 6px 0 2px; overflow: visible; }
.tiles small { display: flex; justify-content: space-between; font-size: 11px; }
.tiles article.warn b { color: var(--warn); }
svg .line { fill: none; stroke: var(--mark); stroke-width: 1.5; vector-effect: non-scaling-stroke; stroke-linejoin: round; }
svg .area { fill: var(--wash); } svg .bar { fill: var(--mark); } svg .base { stroke: var(--line); vector-effect: non-scaling-stroke; }
svg .limit { stroke: var(--warn); stroke-dasharray: 3 3; vector-effect: non-scaling-stroke; }
article[data-tile=degraded] .line, article[data-tile=waits] .line { stroke: var(--warn); } article[data-tile=degraded] .area { fill: var(--warn-wash); } article[data-tile=waits] .bar { fill: var(--warn); }
.facts { display: grid; grid-template-columns: repeat(3, 1fr); gap: 28px; margin: 20px 0 26px; }
.facts h2 { padding-bottom: 6px; border-bottom: 1px solid var(--line); margin-bottom: 6px; }
dl { display: grid; grid-template-columns: 84px 1fr; gap: 2px 10px; } dd { overflow-wrap: anywhere; } dt { padding-top: 1px; } dd.warn { color: var(--warn); font-weight: 500; }
.head { display: flex; gap: 16px; align-items: baseline; margin-bottom: 6px; } .head form { margin-left: auto; } #count { color: var(--soft); font-size: 12px; min-width: 7em; text-align: right; }
input { font: inherit; font-size: 13px; color: inherit; background: var(--card); border: 1px solid var(--line); border-radius: 3px; padding: 3px 8px; width: 220px; }
.wide { overflow-x: auto; border-top: 1px solid var(--line); }
table { border-collapse: collapse; width: 100%; } td, th { text-align: left; padding: 5px 14px 5px 0; border-bottom: 1px solid var(--line); vertical-align: baseline; font-weight: 400; }
thead th { white-space: nowrap; } thead button { color: var(--soft); } th[aria-sort=ascending] button::after { content: " ↑"; } th[aria-sort=descending] button::after { content: " ↓"; }
tbody th { color: var(--ink); font-size: 14px; max-width: 300px; } tbody th bdi { font-weight: 500; display: inline-block; max-width: 100%; overflow: hidden; text-overflow: ellipsis; white-space: nowrap; vertical-align: bottom; }
tbody th i { font: 11px/1 ui-monospace, Menlo, monospace; color: var(--soft); border: 1px solid var(--line); border-radius: 3px; padding: 0 4px; }
td { white-space: nowrap; } td.state { white-space: normal; } td.state em { display: block; min-width: 22ch; font-style: normal; font-size: 12px; color: var(--soft); max-width: 46ch; overflow-wrap: anywhere; }
td.fresh { color: var(--well); } td.refresh_due { color: var(--mark); } td.stale, tr.warn td.state { color: var(--warn); } tr.bad td.state { color: var(--bad); } td.gone { color: var(--soft); }
td.by { max-width: 240px; overflow: hidden; text-overflow: ellipsis; color: var(--soft); font-size: 12px; } td.version { font: 11px ui-monospace, Menlo, monospace; color: var(--soft); padding-right: 0; }
.life { width: 110px; height: 8px; display: block; } .life .whole { fill: var(--line); } .life .lived { fill: var(--mark); } .life .due { fill: var(--soft); } .life .end { fill: var(--warn); }
#more { color: var(--soft); padding: 8px 0; } #more:empty { display: none; } #more button { text-decoration: underline; }
#families { margin-top: 26px; } #families td, #families thead th:not(:first-child) { text-align: right; } #families td:last-child, #families th:last-child { padding-right: 0; } .zero, .zero code, .zero b { color: var(--soft); }
#counters { margin-top: 26px; } #counters ul { list-style: none; columns: 3; column-gap: 28px; margin-top: 6px; border-top: 1px solid var(--line); padding-top: 6px; }
#counters li { display: flex; gap: 8px; break-inside: avoid; padding: 1px 0; } #counters code { margin-right: auto; color: inherit; } #counters b { font-weight: 500; } #counters span { min-width: 5em; text-align: right; color: var(--soft); font-size: 12px; } #counters li.some.alarm b { color: var(--warn); }
h2 { margin-bottom: 6px; } .tiles h2 { margin: 0; }
footer { margin-top: 30px; padding-top: 10px; border-top: 1px solid var(--line); } a { color: var(--mark); margin-left: 8px; } .hidden { position: absolute; clip-path: inset(50%); }
@media (max-width: 980px) { .tiles { grid-template-columns: repeat(3, 1fr); } .facts { grid-template-columns: 1fr; gap: 18px; } #counters ul { columns: 2; } }
@media (max-width: 620px) { body { padding: 0 12px 30px; } .tiles { grid-template-columns: repeat(2, 1fr); } #counters ul { columns: 1; } .verdict h1 { font-size: 21px; } .verdict { padding: 12px 14px; } input { width: 130px; } td.by, td.version, th[data-sort=by], th[data-sort=version] { display: none; } header .host { margin-left: 0; } }
CSS;

const SCRIPT = <<<'JS'
'use strict';
// Looks again every two seconds, keeps five minutes of it, and finds what one look cannot show. Text is only ever set as text.
const WINDOW = 300, ROWS = 100, PERIOD = 2000;
const byId = id => document.getElementById(id);
const el = (name, attributes = {}, ...children) => {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) if (value !== null) made.setAttribute(key, value);
  made.append(...children);
  return made;
};
const shape = (name, attributes, ...children) => {
  const made = document.createElementNS('http://www.w3.org/2000/svg', name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
};
const number = value => Number(value).toLocaleString('en-US', {maximumFractionDigits: value < 10 ? 1 : 0});
const duration = seconds => {
  const s = Math.max(0, Math.floor(seconds));
  return s < 120 ? `${s} s` : s < 7200 ? `${Math.floor(s / 60)} min` : s < 172800 ? `${Math.floor(s / 3600)} h` : `${Math.floor(s / 86400)} days`;
};
const counted = (count, noun) => `${number(count)} ${noun}${count === 1 ? '' : 's'}`;
const clock = at => new Date(at * 1000).toISOString().slice(11, 19);

// --- Five minutes of samples ---

let data = JSON.parse(byId('data').textContent);
let kept = {host: data.host, samples: [], seen: {}, up: false, down: null};
try {
  const before = JSON.parse(sessionStorage.getItem('sharedstate') ?? 'null');
  if (before?.host === data.host && data.at - (before.samples.at(-1)?.at ?? 0) < 60) kept = before;
} catch { /* a page that may keep nothing begins anew */ }

const take = () => {
  const numbers = Object.fromEntries(Object.entries(data.status).filter(([, value]) => typeof value === 'number'));
  const reasons = {};
  for (const family of data.families) for (const [reason, count] of Object.entries(family.mints)) reasons[reason] = (reasons[reason] ?? 0) + count;
  const last = kept.samples.at(-1);
  // A table that was made anew counts from zero.
  if (last && ['token_cache_hits', 'token_cache_misses', 'processes_attached'].some(key => numbers[key] < last.numbers[key])) Object.assign(kept, {samples: [], seen: {}});
  const failed = Object.fromEntries(data.families.filter(family => family.failures > 0).map(family => [family.family, family.failures]));
  kept.samples.push({at: data.at, numbers, reasons, failed, calls: data.provider_calls});
  kept.samples = kept.samples.filter(sample => sample.at > data.at - WINDOW);
  for (const entry of data.entries) {
    const mark = entry.kind === 'rates' ? entry.rates?.confirmed_at : entry.version;
    const seen = kept.seen[entry.id] ??= {mark, changed: []};
    if (mark && mark !== seen.mark) seen.changed.push(data.at);
    Object.assign(seen, {mark, changed: seen.changed.filter(at => at > data.at - WINDOW)});
  }
  if (data.store.up !== false) Object.assign(kept, {down: null, up: true});
  else kept.down ??= data.at;
  try { sessionStorage.setItem('sharedstate', JSON.stringify(kept)); } catch { /* as above */ }
};
const span = () => kept.samples.at(-1).at - kept.samples[0].at;
const grown = key => kept.samples.length < 2 ? 0 : (kept.samples.at(-1).numbers[key] ?? 0) - (kept.samples[0].numbers[key] ?? 0);

// --- What five minutes show; the rules are in docs/OPERATIONS.md ---

const found = () => {
  const findings = data.findings.map(finding => ({...finding}));
  const long = span(), within = `in ${duration(long)}`;
  const find = (level, code, title, why, action, see) => findings.push({level, code, title, why, do: action, see});
  if (kept.down !== null) findings.filter(finding => finding.code === 'redis_down').forEach(finding => { finding.title += `${kept.up ? '' : ' at least'} since ${clock(kept.down)} UTC`; });
  if (long < 1) return findings;

  const [first, last] = [kept.samples[0], kept.samples.at(-1)];
  const reasons = Object.entries(last.reasons).map(([reason, count]) => [reason, count - (first.reasons[reason] ?? 0)]).filter(([, count]) => count > 0)
    .sort((a, b) => b[1] - a[1]).map(([reason, count]) => `${count} ${reason}`).join(', ');
  const here = reasons === '' ? '' : ` Why, on this host: ${reasons}.`;
  const advice = 'Look at rejections, margins_cut and evicted_usable, and compare expires_in of the issuer with what was expected.';
  const storms = data.entries.filter(entry => entry.kind === 'token').map(entry => ({entry, times: kept.seen[entry.id].changed.length, life: Math.max(1, entry.refresh_at - entry.minted_at)}))
    .filter(({times, life}) => times >= 3 && times > 2 * (long / life + 1)).sort((a, b) => b.times - a.times);
  const mints = grown('token_mint_count'), expected = 2 * (data.plan.mints_per_s * long + data.plan.tokens) + 3;
  if (storms.length > 0) {
    const {entry, times, life} = storms[0];
    find('bad', 'mints_above_lifetimes', `Mints above lifetimes: ${entry.name} minted ${counted(times, 'time')} ${within}`,
      `One mint should last ${duration(life)}.${here}` + (storms.length > 1 ? ` The same with ${counted(storms.length - 1, 'other name')}.` : ''), advice, 'token_mint_count');
  } else if (mints > expected) {
    find('bad', 'mints_above_lifetimes', `Mints above lifetimes: ${number(mints)} ${within}`, `The tokens held here need ${number(Math.floor(expected))} at most.${here}`, advice, 'token_mint_count');
  }

  const interval = data.plan.refresh_interval_s;
  const confirmed = Math.max(0, ...data.entries.filter(entry => entry.kind === 'rates').map(entry => kept.seen[entry.id].changed.length));
  const calls = Math.max(confirmed, last.calls - first.calls);
  if (calls > 3 + 4 * long / interval) {
    find('bad', 'fetches_above_plan', `Rates are fetched above plan: ${counted(calls, 'call')} ${within}`, `One in ${duration(interval)} is planned, whatever the traffic.`,
      'See whether refresh_interval_s differs between hosts, and who calls fx_refresh().', 'fx_fetch_count');
  }
  const some = (level, code, keys, atLeast, title, action) => {
    const times = keys.reduce((sum, key) => sum + grown(key), 0);
    if (times >= atLeast && !findings.some(finding => finding.see === keys[0])) find(level, code, title(times), '', action, keys[0]);
  };
  some('bad', 'waited_in_vain', ['wait_timeouts'], 1, times => `Callers waited in vain: ${counted(times, 'time')} ${within}`, 'The issuer is slow or hangs: its callable should have a timeout of its own, below token.wait_timeout_ms.');
  some('warn', 'rejections', ['rejections'], 3, times => `Tokens are rejected: ${counted(times, 'time')} ${within}`, 'An API refuses what the issuer gave: scope, audience, a revoked client, clocks.');
  const failing = Object.keys(last.failed).filter(family => last.failed[family] > (first.failed[family] ?? 0));
  if (failing.length > 0 && !findings.some(finding => finding.see === 'mint_failures')) {
    const without = data.entries.filter(entry => entry.kind === 'token' && !entry.usable && failing.includes(entry.family)).map(entry => entry.name);
    find(without.length > 0 ? 'bad' : 'warn', 'mints_failed', `Mints fail: ${failing.slice(0, 3).join(', ')}, ${counted(grown('mint_failures'), 'time')} ${within}`,
      without.length > 0 ? `There is no token for ${without.slice(0, 3).join(', ')}: callers get MintFailed.` : 'The old tokens are served as long as they last.', 'Look at the issuer: the log has what it answered.', 'mint_failures');
  }
  some('warn', 'table_too_small', ['evicted_usable', 'table_full'], 1, times => `The host table is too small: ${counted(times, 'usable entry').replace(/entrys$/, 'entries')} lost ${within}`, 'Raise host.slots to one and a half times the keys, or host.memory.');
  some('warn', 'minters_lost', ['leases_lost', 'flights_given_up'], 1, times => `Minters were lost: ${counted(times, 'time')} ${within}`, 'A process was stopped, or hung, while it minted: look at the pauses of the machine.');
  if (data.store.up !== false) some('warn', 'redis_failed', ['store_errors', 'breaker_opened'], 1, () => `Redis failed ${within}, and answers now`, 'See Redis’ own log, and the network between.');
  some('warn', 'sealed_unreadable', ['sealed_unreadable'], 1, times => `${counted(times, 'value')} could not be opened ${within}`, 'A key that this host does not have, or somebody who writes to Redis.');
  if (!findings.some(finding => finding.code.startsWith('rates_'))) some('warn', 'refresh_failed', ['fx_refresh_failures'], 1, times => `No source brought rates: ${counted(times, 'attempt')} ${within}`, 'The last sheet is served. The log names each source and its reason.');
  return findings.sort((a, b) => (b.level === 'bad') - (a.level === 'bad'));
};

// --- Drawing ---

const LEVELS = {bad: 'Act now', warn: 'Look soon', well: 'Well', idle: 'Idle'};
const drawVerdict = () => {
  const [first, ...others] = found();
  const verdict = first ?? data.verdict;
  const section = byId('verdict');
  const parts = [el('small', {}, LEVELS[verdict.level]), el('h1', {}, verdict.title), el('p', {}, verdict.why), el('p', {class: 'do'}, ...(verdict.do === '' ? [] : [`${verdict.do} `, el('code', {}, verdict.see)])),
    el('ul', {}, ...others.map(one => el('li', {class: one.level}, el('b', {}, one.title), ` ${one.why} ${one.do} `, el('code', {}, one.see))))];
  // A screen reader is told what has changed, and not every two seconds the same.
  const text = parts.map(part => part.textContent).join('').replace(/\d+/g, '');
  if (section.dataset.text === text) section.querySelectorAll(':scope > :not(small)').forEach((old, i) => { old.replaceChildren(...parts[i + 1].childNodes); });
  else { section.replaceChildren(...parts); section.className = `verdict ${verdict.level}`; section.dataset.text = text; }
  document.title = `${verdict.title} · ${data.host}`;
  const color = {bad: '%23b3261e', warn: '%23c98500', well: '%232c6e49', idle: '%23888'}[verdict.level];
  document.querySelector('link[rel=icon]').href = `data:image/svg+xml,<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16"><circle cx="8" cy="8" r="7" fill="${color}"/></svg>`;
};

const sum = (sample, keys) => keys.reduce((total, key) => total + (sample.numbers[key] ?? 0), 0);
const TILES = {
  hits: {keys: ['token_cache_hits', 'fx_cache_hits'], form: 'area'}, misses: {keys: ['token_cache_misses', 'fx_cache_misses'], form: 'area'},
  mints: {keys: ['token_mint_count'], form: 'bars'}, waits: {keys: ['waits'], form: 'bars'}, degraded: {keys: ['served_degraded'], form: 'area'}, rates: {keys: ['fx_confirmed_age_s'], form: 'gauge'},
};
const drawTile = (id, {keys, form}) => {
  const tile = document.querySelector(`[data-tile=${id}]`), samples = kept.samples, last = samples.at(-1);
  if (form === 'gauge' && last.numbers[keys[0]] === undefined) return;
  const seconds = Math.max(60, Math.min(WINDOW, span())), x = at => 300 - 300 * (last.at - at) / seconds;
  // A gauge is what it is; a counter is how fast it grows from one sample to the next.
  const points = form === 'gauge' ? samples.map(sample => [sample.at, sample.at, sum(sample, keys)])
    : samples.slice(1).map((sample, i) => [samples[i].at, sample.at, (sum(sample, keys) - sum(samples[i], keys)) / (form === 'bars' ? 1 : Math.max(.1, sample.at - samples[i].at))]);
  const peak = Math.max(0, ...points.map(([, , value]) => value));
  const interval = data.plan.refresh_interval_s, top = form === 'gauge' ? Math.max(peak, 2 * interval) : Math.max(peak, 1), y = value => 47 - 45 * value / top;
  const drawn = [shape('line', {class: 'base', x1: 0, x2: 300, y1: 47.5, y2: 47.5})];
  if (form === 'bars') {
    for (const [from, to, value] of points) if (value > 0) drawn.push(shape('rect', {class: 'bar', x: x(to) - Math.max(3, x(to) - x(from)), width: Math.max(2.5, x(to) - x(from) - .5), y: y(value), height: 47 - y(value)}));
  } else if (points.length > 0 && peak > 0) {
    const path = points.map(([, at, value]) => `${x(at).toFixed(1)},${y(value).toFixed(1)}`);
    if (form === 'area') drawn.push(shape('polygon', {class: 'area', points: `${x(points[0][1]).toFixed(1)},47 ${path.join(' ')} 300,47`}));
    else drawn.push(shape('line', {class: 'limit', x1: 0, x2: 300, y1: y(interval), y2: y(interval)}));
    drawn.push(shape('polyline', {class: 'line', points: path.join(' ')}));
  }
  tile.querySelector('svg').replaceChildren(...drawn);
  const total = sum(last, keys);
  let now, unit, note;
  if (form === 'gauge') [now, unit, note] = [duration(total), 'ago', `due at ${duration(interval)}`];
  else if (form === 'bars') {
    const begin = samples.find(sample => sample.at >= last.at - 60);
    [now, unit, note] = [number(total - sum(begin, keys)), `in ${duration(Math.min(60, last.at - begin.at))}, ${number(total)} in all`, peak > 0 ? `peak ${number(peak)} in 2 s` : ''];
  } else {
    const recent = points.slice(-3), rate = recent.reduce((total, [, , value]) => total + value, 0) / Math.max(1, recent.length);
    [now, unit, note] = [number(rate), `/s, ${number(total)} in all`, peak > 0 ? `peak ${number(peak)}/s` : ''];
  }
  tile.querySelector('b').textContent = now;
  tile.querySelector('span').textContent = unit;
  tile.querySelector('small').replaceChildren(el('span', {}, `${duration(seconds)}`), el('span', {}, note));
  tile.className = (id === 'degraded' || id === 'waits') && now !== '0' ? 'warn' : '';
};

const drawFacts = () => {
  for (const [title, facts] of Object.entries(data.facts)) {
    document.querySelector(`[data-facts="${title}"] dl`).replaceChildren(...facts.flatMap(([label, text, level]) => [el('dt', {}, label), el('dd', {class: level ?? null}, text)]));
  }
};

let sort = {key: 'trouble', down: true}, all = false;
const filter = byId('filter');
const value = (entry, key) => key === 'by' ? entry.shown.by : key === 'age' ? -(entry.rates?.confirmed_at ?? entry.minted_at ?? 0) : key === 'name' ? entry.name : entry[key] ?? -1;
const life = entry => {
  const whole = (entry[entry.kind === 'rates' ? 'usable_until' : 'expires_at'] ?? 0) - (entry.minted_at ?? 0);
  if (whole <= 0) return '';
  const x = instant => (100 * Math.min(1, Math.max(0, (instant - entry.minted_at) / whole))).toFixed(1);
  return shape('svg', {class: 'life', viewBox: '0 0 100 8', preserveAspectRatio: 'none', 'aria-hidden': 'true'}, shape('rect', {class: 'whole', width: 100, y: 3, height: 2}),
    shape('rect', {class: 'lived', width: x(data.at), y: 2, height: 4}), shape('rect', {class: 'due', x: x(entry.refresh_at), width: 1, height: 8}), shape('rect', {class: 'end', x: x(entry.usable_until), width: 1, height: 8}));
};
const row = entry => {
  const {state, note, age, renewal, left, by, by_in_full} = entry.shown;
  const name = el('th', {scope: 'row'}, el('bdi', {title: entry.name}, entry.name));
  if (entry.kind !== 'token') name.append(' ', el('i', {}, entry.kind));
  if (entry.fingerprint !== null) name.append(' ', el('i', {}, entry.fingerprint.slice(0, 8)));
  return el('tr', {class: entry.trouble > 3 ? 'bad' : entry.trouble > 1 ? 'warn' : ''}, name, el('td', {class: `state ${entry.freshness}`}, state, ...(note === '' ? [] : [el('em', {}, note)])), el('td', {}, age), el('td', {}, life(entry)),
    el('td', {}, renewal), el('td', {}, left), el('td', {class: 'by', title: by_in_full}, by), el('td', {class: 'version'}, String(entry.version)));
};
const drawNames = () => {
  const wanted = filter.value.toLowerCase();
  const rows = data.entries.filter(entry => entry.name.toLowerCase().includes(wanted));
  rows.sort((a, b) => {
    const [x, y] = [value(a, sort.key), value(b, sort.key)];
    return (x < y ? -1 : x > y ? 1 : 0) * (sort.down ? -1 : 1) || (a.name < b.name ? -1 : a.name > b.name ? 1 : 0);
  });
  const shown = all ? rows : rows.slice(0, ROWS);
  document.querySelector('#names tbody').replaceChildren(...shown.map(row));
  const cut = data.entries_found > data.entries.length;
  byId('count').textContent = `${number(cut && wanted === '' ? data.entries_found : rows.length)} of ${number(data.entries_total)}`;
  const more = byId('more');
  if (shown.length < rows.length) {
    const button = el('button', {type: 'button'}, `Show ${number(rows.length - shown.length)} more`);
    button.onclick = () => { all = true; drawNames(); };
    more.replaceChildren(button);
  } else more.replaceChildren(cut ? `The first ${number(rows.length)}: filter for the others` : '');
};

const drawFamilies = () => {
  const reasons = ['cold', 'expired', 'refresh', 'rejected', 'evicted', 'degraded'];
  document.querySelector('#families tbody').replaceChildren(...data.families.map(one => el('tr', {}, el('th', {scope: 'row'}, el('bdi', {}, one.family)),
    ...[one.usable, one.hits, one.misses, ...reasons.map(reason => one.mints[reason] ?? 0), one.failures].map(count => el('td', {class: count === 0 ? 'zero' : null}, Number(count).toLocaleString('en-US'))),
    el('td', {}, one.mean_mint_s === null ? '' : `${one.mean_mint_s} s`))));
};

const drawCounters = () => {
  for (const item of document.querySelectorAll('[data-counter]')) {
    const key = item.dataset.counter, now = data.status[key];
    if (typeof now !== 'number') continue;
    const change = grown(key);
    item.querySelector('b').textContent = now.toLocaleString('en-US');
    item.querySelector('span').textContent = change === 0 ? '' : `${change > 0 ? '+' : '−'}${Math.abs(change).toLocaleString('en-US')}`;
    item.classList.toggle('zero', now === 0);
    item.classList.toggle('some', now !== 0);
  }
};

const draw = () => {
  drawVerdict();
  Object.entries(TILES).forEach(([id, tile]) => drawTile(id, tile));
  drawFacts();
  drawNames();
  drawFamilies();
  drawCounters();
};

// --- Looking again ---

const live = byId('live');
let timer = null, paused = false;
const look = async () => {
  clearTimeout(timer);
  const begin = performance.now();
  try {
    const query = data.entries_total > data.entries.length && filter.value !== '' || data.filter !== '' ? `?json&filter=${encodeURIComponent(filter.value)}` : '?json';
    // The address of the page may contain a password, and fetch would refuse it.
    const answer = await fetch(location.origin + location.pathname + query, {cache: 'no-store'});
    if (!answer.ok) throw new Error(`status ${answer.status}`);
    const next = await answer.json();
    if (next.host !== kept.host) throw new Error(`${next.host} answered, open the page of one host`);
    data = next;
    take();
    draw();
    live.className = 'on';
    live.textContent = `${clock(data.at)} UTC`;
  } catch (error) {
    live.className = 'lost';
    live.textContent = `no news since ${clock(data.at)} UTC: ${error.message}`;
  }
  // What takes long is asked for less often.
  if (!document.hidden && !paused) timer = setTimeout(look, Math.max(PERIOD, 20 * (performance.now() - begin)));
};
document.addEventListener('visibilitychange', () => document.hidden ? clearTimeout(timer) : paused || look());
live.disabled = false;
live.title = 'Stop and go on';
live.onclick = () => { paused = !paused; clearTimeout(timer); live.className = paused ? 'off' : 'on'; paused || look(); };
filter.form.onsubmit = event => { event.preventDefault(); look(); };
filter.oninput = () => { drawNames(); if (data.entries_total > data.entries.length) { clearTimeout(timer); timer = setTimeout(look, 300); } };
for (const head of document.querySelectorAll('th[data-sort]')) {
  if (head.dataset.sort === 'life') continue;
  const button = el('button', {type: 'button'}, head.textContent);
  button.onclick = () => {
    sort = {key: head.dataset.sort, down: sort.key === head.dataset.sort ? !sort.down : head.dataset.sort === 'trouble'};
    document.querySelectorAll('th[aria-sort]').forEach(other => other.removeAttribute('aria-sort'));
    head.setAttribute('aria-sort', sort.down ? 'descending' : 'ascending');
    drawNames();
  };
  head.replaceChildren(button);
}
take();
draw();
live.className = 'on';
timer = setTimeout(look, PERIOD / 2);
JS;

try {
    main();
} catch (Throwable $thrown) {
    // A page about a host in trouble must not be one more blank page.
    error_log("sharedstate status page: $thrown");
    http_response_code(500);
    echo 'The status page itself has failed; the error log of PHP says why.';
}
