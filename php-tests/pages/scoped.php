<?php

/** ?name=…&ms=…&form=private|self|invokable: a token with 'defer', minted by what only its own class may call. Due as in defer.php. */

declare(strict_types=1);

require __DIR__ . '/mint.php';

final class Issuer
{
    public function token(string $form): string
    {
        $mint = match ($form) {
            'private' => [$this, 'ask'],
            'self' => 'self::askAtOnce',
            'invokable' => $this,
        };
        return shared_token_get($_GET['name'], $mint, ['defer' => true, 'refresh_ratio' => 0.01]);
    }

    public function __invoke(): array
    {
        return $this->ask();
    }

    private function ask(): array
    {
        return mint($_GET['name'], (int) $_GET['ms'], 60.0);
    }

    private static function askAtOnce(): array
    {
        return (new self())->ask();
    }
}

// PHP calls 'self::' deprecated, as often as it looks at it.
error_reporting(E_ALL & ~E_DEPRECATED);
answer(static fn (): array => ['token' => (new Issuer())->token($_GET['form'])]);
