<?php

// The application that the examples in README and docs are cut out of. Each of them runs after this, in a process of its own.

declare(strict_types=1);

error_reporting(E_ALL);
set_error_handler(static function (int $level, string $message, string $file, int $line): never {
    throw new ErrorException($message, 0, $level, $file, $line);
});

/** What an example says a line is worth, after "// =>". */
function documented(mixed $wanted, mixed $got, string $line): void
{
    if ($wanted !== $got) {
        fprintf(STDERR, "the example says\n  %s\nbut it is %s\n", $line, var_export($got, true));
        exit(3);
    }
}

$oauth = new class {
    private int $minted = 0;

    /** @return array{access_token: string, token_type: string, expires_in: int} */
    public function post(string $path, array $form): array
    {
        return ['access_token' => 'token-' . ++$this->minted . '-' . bin2hex(random_bytes(4)), 'token_type' => 'Bearer', 'expires_in' => 3600];
    }
};

// Refuses the first token it sees, as an API does whose sessions were reset.
$crm = new class {
    private ?string $refused = null;

    public function get(string $path, string $token): object
    {
        $this->refused ??= $token;
        return (object) ['status' => $token === $this->refused ? 401 : 200];
    }
};

$rates = $provider = new class {
    public function latest(): array
    {
        return ['base' => 'EUR', 'timestamp' => time() - 60, 'rates' => ['USD' => '1.1172', 'JPY' => '175.68', 'CHF' => '0.9312']];
    }
};

// As a page that has been open for a while: the examples do not show each time where their token and their rates came from.
$mint = fn () => $oauth->post('/token', ['grant_type' => 'client_credentials']);
$token = shared_token_get('crm', $mint);
fx_rate('EUR', 'USD', $rates->latest(...));

if (getenv('REDIS_SOCKET') !== false) {
    $redis = new Redis();
    $redis->connect(getenv('REDIS_SOCKET'));
    require '/usr/share/php/Symfony/Component/Cache/autoload.php';
    $cache = new Symfony\Component\Cache\Adapter\RedisAdapter($redis);
}
