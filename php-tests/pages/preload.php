<?php

/** Preloaded: runs in the master, before any request. Whatever it got goes to a file, because nobody reads its output. */

declare(strict_types=1);

try {
    $said = shared_token_get('preload', static fn (): string => 'must not be minted', ['ttl' => 60]);
} catch (Throwable $thrown) {
    $said = get_class($thrown);
}
file_put_contents(getenv('PRELOAD_LOG'), $said . "\n", FILE_APPEND);
