<?php

/** hits.php N: N token hits and N rate hits between two system calls that a trace will show. */

declare(strict_types=1);

$n = (int) $argv[1];
shared_token_get('bench', static fn (): array => ['access_token' => bin2hex(random_bytes(600)), 'expires_in' => 3600]);
fx_rate('EUR', 'USD', static fn (): array => ['base' => 'EUR', 'rates' => ['USD' => '1.0876']]);
for ($i = 0; $i < 10; $i++) {
    shared_token_get('bench');
    fx_rate('EUR', 'USD');
}

file_exists('/hits-begin');
for ($i = 0; $i < $n; $i++) {
    $token = shared_token_get('bench');
    $rate = fx_rate('EUR', 'USD');
}
file_exists('/hits-end');
