<?php

// A quick look at everything the extension declares, without PHPUnit, Redis or FPM:
//   php -n -d extension=<the built library> -d sharedstate.host.dir=<an empty folder> smoke.php
// and of the PHP polyfill:
//   php -n -d auto_prepend_file=php-tests/support/polyfill.php php-tests/smoke.php
// Prints what failed and exits with 1, or says how much was checked.

declare(strict_types=1);

$checked = 0;
$failed = 0;

$is = static function (mixed $wanted, mixed $got, string $claim) use (&$checked, &$failed): void {
    $checked++;
    if ($wanted !== $got) {
        $failed++;
        printf("FAILED: %s\n  wanted %s\n  got    %s\n", $claim, var_export($wanted, true), var_export($got, true));
    }
};
$throws = static function (string $class, string $words, callable $call) use ($is): ?\Throwable {
    try {
        $call();
    } catch (\Throwable $thrown) {
        $is($class, $thrown::class, "throws: $words");
        $is(true, str_contains($thrown->getMessage(), $words), "'{$thrown->getMessage()}' says '$words'");
        return $thrown;
    }
    $is($class, 'nothing', "throws: $words");
    return null;
};
$polyfill = sharedstate_status()['polyfill'] ?? false;
$run = bin2hex(random_bytes(4));
$name = static fn (string $what): string => "$what:$run";
$response = static fn (string $token): array => ['access_token' => $token, 'expires_in' => 600];

// Getting.
$is('one', shared_token_get($name('a'), static fn () => $response('one')), 'a token is minted');
$is('one', shared_token_get($name('a'), static fn () => $response('two')), 'and only once');
$is('one', shared_token_get($name('a')), 'and known without a callable');
$is('json', shared_token_get($name('j'), static fn () => '{"token":"json","expires_in":"60"}'), 'JSON is read');
$is('plain', shared_token_get($name('p'), static fn () => 'plain', ['ttl' => 60]), 'a string with a ttl');
$league = new class {
    public function getToken(): string { return 'league'; }
    public function getExpires(): int { return time() + 100; }
};
$is('league', shared_token_get($name('l'), static fn () => $league), 'a token object');
$is('x', shared_token_get($name('f'), static fn () => $response('x'), ['fingerprint' => ['a' => 1, 'b' => 2]]), 'a fingerprint');
$is('x', shared_token_get($name('f'), null, ['fingerprint' => ['b' => 2, 'a' => 1]]), 'in any order of its keys');
$throws(\SharedState\NoSource::class, '$mint', static fn () => shared_token_get($name('f')));
$given = null;
shared_token_get($name('g'), static function (array $request) use (&$given, $response) {
    $given = array_map(get_debug_type(...), $request);
    return $response('g');
});
$is(['name' => 'string', 'version' => 'int'], $given, 'the callable is told name and version');

// Knowing and dropping.
shared_token_get($name('k'), static fn () => $response('k') + ['instance_url' => 'https://x'], ['keep' => ['instance_url']]);
$info = shared_token_info($name('k'));
$is(['instance_url' => 'https://x'], $info['kept'] ?? null, 'fields are kept');
$is('fresh', $info['freshness'] ?? null, 'the token is fresh');
$is(false, shared_token_invalidate($name('k'), 'another'), 'another token drops nothing');
$is(true, shared_token_invalidate($name('k'), 'k'), 'the token itself is dropped');
$is(null, shared_token_info($name('k')), 'and gone');

// Dropping all, and looking.
shared_token_get($name('d'), static fn () => $response('d'));
shared_token_get($name('d'), static fn () => $response('d'), ['fingerprint' => 'other']);
$entries = static fn (): array => array_values(array_filter(sharedstate_entries(100_000), static fn (array $entry): bool => $entry['name'] === $name('d')));
$is(['fresh', 'fresh'], array_column($entries(), 'freshness'), 'both are listed');
$is(false, str_contains(serialize($entries()), 'access_token'), 'without their values');
$is(['dropped' => 2, 'since' => null], shared_token_invalidate_all($name('d')), 'all of a name are dropped');
$is(['gone', 'gone'], array_column($entries(), 'freshness'), 'and listed as gone');
$is('one', shared_token_get($name('a')), 'another name stays');
$throws(\ValueError::class, '1 or more; 0 given', static fn () => sharedstate_entries(0));
$metrics = sharedstate_metrics();
$is(1, preg_match('/^sharedstate_token_mint_count_total\{family="d",reason="cold"\} [1-9]/m', $metrics), 'mints are counted by family');
$is(true, str_ends_with($metrics, "\n# EOF\n"), 'the metrics end');

// Failing.
$original = new \LogicException('why');
$failure = $throws(\SharedState\MintFailed::class, 'LogicException: why', static fn () => shared_token_get($name('e'), static fn () => throw $original));
$is($original, $failure?->getPrevious(), 'the original is the previous');
$is(__FILE__, $failure?->getFile(), 'with a file');
$throws(\SharedState\MintFailed::class, 'why', static fn () => shared_token_get($name('e'), static fn () => $response('e')));
$throws(\TypeError::class, 'bug', static fn () => shared_token_get($name('t'), static fn () => throw new \TypeError('bug')));
$throws(\SharedState\InvalidValue::class, 'ttl', static fn () => shared_token_get($name('i'), static fn () => 'opaque'));
$recursive = $throws(\SharedState\MintFailed::class, 'recursion', static fn () => shared_token_get($name('r'), static fn () => $response(shared_token_get($name('r')))));
$is(\SharedState\WaitTimeout::class, get_debug_type($recursive?->getPrevious()), 'asking for oneself ends at once');

// Asking wrongly.
$throws(\ArgumentCountError::class, 'at least 1', static fn () => shared_token_get());
$throws(\TypeError::class, $polyfill ? 'type ?callable' : 'valid callback or null', static fn () => shared_token_get($name('a'), 'no such function'));
$throws(\ValueError::class, 'the known ones are ttl', static fn () => shared_token_get($name('a'), null, ['tll' => 1]));
$throws(\ValueError::class, 'must not be empty', static fn () => shared_token_get(''));
$trace = $throws(\TypeError::class, 'fingerprint', static fn () => shared_token_invalidate($name('a'), 'secret', ['fingerprint' => 1]));
$is(false, str_contains(print_r($trace?->getTrace(), true), 'secret'), 'a rejected token is not in the trace');

// Rates.
$sheet = ['base' => 'EUR', 'rates' => ['USD' => 1.25, 'GBP' => '0.8']];
$is(1.0, fx_rate('EUR', 'EUR'), 'the same currency needs no sheet');
$is(1.25, fx_rate('EUR', 'USD', static fn () => $sheet, ['sheet' => $run]), 'a rate from a fetched sheet');
$is(0.64, fx_rate('USD', 'GBP', null, ['sheet' => $run]), 'a cross rate of the same sheet');
$is('0.64', fx_convert('1', 'USD', 'GBP', null, ['sheet' => $run]), 'an amount at the same rate');
$is('8', fx_convert('7.5', 'JPY', 'JPY'), 'yen have no decimals');
$is('0.64', fx_quote('1', 'USD', 'GBP', ['sheet' => $run])['rate'] ?? null, 'a quote says its rate');
$is(['EUR' => '1', 'GBP' => '0.8', 'USD' => '1.25'], fx_rates(null, ['sheet' => $run]), 'all rates');
$is(false, fx_rate_info('USD', 'GBP', ['sheet' => $run])['stale'] ?? null, 'a rate that is not stale');
$throws(\ValueError::class, 'pass $scale', static fn () => fx_convert('1', 'EUR', 'XAU', null, ['sheet' => $run]));
$throws(\SharedState\RateUnavailable::class, 'XXX', static fn () => fx_rate('EUR', 'XXX', null, ['sheet' => $run]));
$throws(\ValueError::class, 'three capital letters', static fn () => fx_rate('EUR', 'usd'));

// Many keys, more than the memo holds.
foreach (range(1, 200) as $i) {
    shared_token_get($name("m$i"), static fn () => $response("t$i"));
}
foreach ([1, 2] as $_) {
    foreach (range(1, 200) as $i) {
        $is("t$i", shared_token_get($name("m$i")), "token $i of 200");
    }
}

$status = sharedstate_status();
$is(true, $status['token_mint_count'] >= 200, 'mints are counted');
$is(true, $status['token_cache_hits'] >= 400, 'hits are counted');
$is(false, array_key_exists('host_table', sharedstate_status(true)), 'a limited status names no path');
$is($polyfill ? false : '', ini_get('sharedstate.redis.password'), 'the password is not to be read');

printf("%d checked, %d failed\n", $checked, $failed);
exit($failed === 0 ? 0 : 1);
