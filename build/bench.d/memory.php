<?php

/** The private memory of this worker in kilobytes, after a mint and a thousand hits if it has the extension. */

declare(strict_types=1);

if (function_exists('shared_token_get')) {
    $mint = static fn (): array => ['access_token' => str_repeat('t', 1200), 'expires_in' => 3600];
    for ($i = 0; $i < 1000; $i++) {
        shared_token_get('memory', $mint);
    }
}
preg_match('/^Private_Dirty:\s+(\d+)/m', file_get_contents('/proc/self/smaps_rollup'), $found);
echo $found[1];
