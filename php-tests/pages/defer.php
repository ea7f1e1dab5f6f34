<?php

/**
 * ?name=…&ms=…[&session=ID][&store=throws][&late=1][&end=exception|fatal][&mint=exception|error]: a token with 'defer', in a page
 * that does what frameworks do around it. It is due half a second after its mint.
 */

declare(strict_types=1);

require __DIR__ . '/mint.php';

if (isset($_GET['store'])) {
    // Not on top of SessionHandler: a debug PHP reports that one's own leak when its write() throws.
    session_set_save_handler(new class implements SessionHandlerInterface {
        public function open(string $path, string $name): bool
        {
            return true;
        }

        public function close(): bool
        {
            return true;
        }

        public function read(string $id): string
        {
            return '';
        }

        public function write(string $id, string $data): bool
        {
            throw new LogicException('the session store is down');
        }

        public function destroy(string $id): bool
        {
            return true;
        }

        public function gc(int $lifetime): int
        {
            return 0;
        }
    }, false);
}
if (isset($_GET['session'])) {
    session_id($_GET['session']);
    session_start();
    $_SESSION['clicks'] = ($_SESSION['clicks'] ?? 0) + 1;
}
$token = shared_token_get($_GET['name'], static function (): array {
    if (($_GET['mint'] ?? '') !== '') {
        note('start', $_GET['name']);
        throw $_GET['mint'] === 'error' ? new Error('a bug') : new RuntimeException('the issuer is down');
    }
    return mint($_GET['name'], (int) $_GET['ms'], 60.0);
}, ['defer' => true, 'refresh_ratio' => 0.01]);
if (isset($_GET['late'])) {
    // As an error handler does that wants to be the last.
    register_shutdown_function(static function (): void {
        register_shutdown_function(static fn () => print ' late page');
    });
}
echo json_encode(['token' => $token, 'pid' => getmypid()]);
if (isset($_GET['end'])) {
    $_GET['end'] === 'fatal' ? trigger_error('the page', E_USER_ERROR) : throw new LogicException('the page');
}
