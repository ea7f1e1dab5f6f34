<?php

/** ?name=…&then=end|fatal: a fiber is suspended in the middle of its mint, and the request ends without it. */

declare(strict_types=1);

require __DIR__ . '/mint.php';

$fiber = new Fiber(static fn (): string => shared_token_get($_GET['name'], static function (): string {
    note('start', $_GET['name']);
    Fiber::suspend();
    return 'never reached';
}, ['ttl' => 3600]));
$fiber->start();
if ($_GET['then'] === 'fatal') {
    trigger_error('fatal with a suspended mint', E_USER_ERROR);
}
answer(static fn (): array => []);
