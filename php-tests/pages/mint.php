<?php

/** What the pages share: a mint that takes its time and writes down that it happened. */

declare(strict_types=1);

function note(string $event, string $name): void
{
    $line = sprintf("%s %s %s %d %.6f\n", $event, $name, getenv('TEST_HOST'), getmypid(), microtime(true));
    // Its own lock, not the extension's: this file is the witness.
    file_put_contents(getenv('MINT_LOG'), $line, FILE_APPEND | LOCK_EX);
}

/**
 * A token says in clear text until when it is good, counted from the start of the mint, so that every answer
 * can be checked: "<random>.<unix time>".
 */
function mint(string $name, int $milliseconds, float $ttl): array
{
    $start = microtime(true);
    note('start', $name);
    usleep($milliseconds * 1000);
    note('end', $name);
    return ['access_token' => bin2hex(random_bytes(16)) . '.' . sprintf('%.3f', $start + $ttl), 'expires_in' => (int) $ttl];
}

/** Runs the page and answers with JSON, whatever happens in it. */
function answer(callable $page): void
{
    $start = microtime(true);
    try {
        $said = $page();
    } catch (Throwable $thrown) {
        $said = ['error' => get_class($thrown), 'message' => $thrown->getMessage()];
    }
    header('Content-Type: application/json');
    echo json_encode($said + ['pid' => getmypid(), 'host' => getenv('TEST_HOST'), 'served' => microtime(true),
        'took' => microtime(true) - $start]);
}
