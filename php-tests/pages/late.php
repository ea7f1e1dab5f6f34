<?php

/**
 * Code that PHP runs when the request is all but over, and that asks for tokens and rates then.
 *
 *   ?form=callbacks|object|written   a session whose handler asks for a token, and how it is written: by the session
 *                                    module, after us; or in the script
 *   ?form=stream|filter|output       a stream wrapper, a filter, an output buffer
 */

declare(strict_types=1);

$log = dirname(getenv('MINT_LOG')) . '/late';

/** Not the pages' own mint: that one locks a file, which PHP does not close any more when it closes all streams. */
function token(array $asked): array
{
    file_put_contents(Late::$log . '-mints', "$asked[name]\n", FILE_APPEND);
    return ['access_token' => "token-of-$asked[name]", 'expires_in' => 3600];
}

function ask(): string
{
    $token = shared_token_get('vault', 'token');
    // The same again, and with options made in the call.
    $again = shared_token_get('vault');
    $own = shared_token_get('own', 'token', ['fingerprint' => ['for' => $_GET['form']], 'defer' => true]);
    return sprintf("%s; %s; %s; %s\n", $token === $again ? $token : 'different', $own,
        fx_rate('EUR', 'USD', fn () => ['base' => 'EUR', 'rates' => ['USD' => '1.5']]), isset(sharedstate_status()['version']) ? 'status' : 'none');
}

final class Store implements SessionHandlerInterface
{
    public function __construct(private string $file, private string $log)
    {
    }

    public function open(string $path, string $name): bool
    {
        return true;
    }

    public function read(string $id): string
    {
        ask();
        return (string) @file_get_contents($this->file);
    }

    public function write(string $id, string $data): bool
    {
        file_put_contents($this->log, 'write ' . ask(), FILE_APPEND);
        return (bool) file_put_contents($this->file, $data);
    }

    public function close(): bool
    {
        file_put_contents($this->log, 'close ' . ask(), FILE_APPEND);
        return true;
    }

    public function destroy(string $id): bool
    {
        return true;
    }

    public function gc(int $lifetime): int
    {
        return 0;
    }
}

final class Wrapper
{
    /** @var resource */
    public $context;

    public function stream_open(): bool
    {
        return true;
    }

    public function stream_write(string $data): int
    {
        return strlen($data);
    }

    public function stream_close(): void
    {
        file_put_contents(Late::$log, 'stream ' . ask(), FILE_APPEND);
    }
}

final class Late
{
    public static string $log;
    /** @var resource */
    public static $stream;
}

final class Filter extends php_user_filter
{
    public function filter($in, $out, &$consumed, bool $closing): int
    {
        while ($bucket = stream_bucket_make_writeable($in)) {
            $consumed += $bucket->datalen;
            stream_bucket_append($out, $bucket);
        }
        if ($closing) {
            file_put_contents(Late::$log, 'filter ' . ask(), FILE_APPEND);
        }
        return PSFS_PASS_ON;
    }

    public function onClose(): void
    {
        file_put_contents(Late::$log, 'onClose ' . ask(), FILE_APPEND);
    }
}

Late::$log = $log;
switch ($form = $_GET['form']) {
    case 'callbacks':
    case 'object':
    case 'written':
        ini_set('session.use_cookies', '0');
        ini_set('session.cache_limiter', '');
        $store = new Store("$log-session", $log);
        if ($form === 'object') {
            session_set_save_handler($store, false);
        } else {
            session_set_save_handler($store->open(...), $store->close(...), $store->read(...), $store->write(...), $store->destroy(...), $store->gc(...));
        }
        session_id('probe');
        session_start();
        echo $_SESSION['visits'] = ($_SESSION['visits'] ?? 0) + 1;
        if ($form === 'written') {
            session_write_close();
        }
        break;
    case 'stream':
        stream_wrapper_register('late', Wrapper::class);
        Late::$stream = fopen('late://', 'w');
        fwrite(Late::$stream, 'x');
        echo 1;
        break;
    case 'filter':
        stream_filter_register('late', Filter::class);
        Late::$stream = fopen('php://temp', 'w');
        stream_filter_append(Late::$stream, 'late', STREAM_FILTER_WRITE);
        fwrite(Late::$stream, 'x');
        echo 1;
        break;
    case 'output':
        ob_start(static function (string $page): string {
            file_put_contents(Late::$log, 'output ' . ask(), FILE_APPEND);
            return $page;
        });
        echo 1;
        break;
}
