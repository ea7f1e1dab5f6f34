<?php

/** ?count=…[&prefix=tenant:]: mints so many names at once, in families of ten. */

declare(strict_types=1);

require __DIR__ . '/mint.php';

answer(static function (): array {
    for ($i = 0; $i < $_GET['count']; $i++) {
        shared_token_get(sprintf('shop-%d:%04d', $i % 10, $i), static fn (): array => ['access_token' => "token-$i", 'expires_in' => 3600 + $i]);
    }
    return ['minted' => $i];
});
