<?php

declare(strict_types=1);

use SharedState\Tests\Support\Fpm;
use SharedState\Tests\Support\TestCase;

/** The functions work until PHP is done with the request, and so until the session is written and streams are closed. */
final class WholeRequestTest extends TestCase
{
    private const ANSWER = 'token-of-vault; token-of-own; 1.5; status';

    private Fpm $host;

    protected function setUp(): void
    {
        parent::setUp();
        $this->host = $this->host('north', [], ['pm.max_children' => 1]);
    }

    /** @return array<string, array{string, list<string>}> */
    public static function forms(): array
    {
        return [
            'a session handler of callbacks' => ['callbacks', ['write', 'close']],
            'a session handler of an object that registers nothing' => ['object', ['write', 'close']],
            'a session that is written in the script' => ['written', ['write', 'close']],
            'a stream wrapper' => ['stream', ['stream']],
            'a filter' => ['filter', ['filter', 'onClose']],
            'an output buffer' => ['output', ['output']],
        ];
    }

    /**
     * @dataProvider forms
     * @param list<string> $calls
     */
    public function test_what_php_calls_last_gets_answers(string $form, array $calls): void
    {
        $pages = [];
        for ($i = 1; $i <= 3; $i++) {
            $pages[] = $this->get($this->host, 'late.php', ['form' => $form])->body;
        }
        self::assertSame(in_array($form, ['stream', 'filter', 'output'], true) ? ['1', '1', '1'] : ['1', '2', '3'], $pages);
        $expected = [];
        for ($i = 1; $i <= 3; $i++) {
            foreach ($calls as $call) {
                $expected[] = "$call " . self::ANSWER;
            }
        }
        $this->until('all calls', fn (): bool => substr_count($this->late(), "\n") >= count($expected));
        self::assertSame($expected, explode("\n", trim($this->late())));
        // Two names, minted once by whichever code asked first, and the worker is as good as new.
        self::assertSame("vault\nown\n", file_get_contents("$this->folder/late-mints"));
        self::assertSame('token-of-vault', $this->tokenOf($this->host, 'vault'));
        self::assertSame(0, $this->statusOf($this->host)['mint_failures']);
    }

    public function test_a_mint_that_dies_that_late_leaves_nobody_waiting(): void
    {
        $page = 'session_set_save_handler(fn () => true, fn () => true, fn () => "", function () {
            shared_token_get("dying", function () { shared_token_get("outer-" . getmypid(), fn () => "T", ["ttl" => 60]); exit; }); return true;
        }, fn () => true, fn () => 0);
        session_id("probe"); @session_start(); $_SESSION["a"] = 1; return 1;';
        self::assertSame(1, $this->php($page));
        $start = microtime(true);
        self::assertSame('T', $this->php('return shared_token_get("dying", fn () => "T", ["ttl" => 60]);'));
        self::assertLessThan(4.0, microtime(true) - $start, 'nobody holds its lease');
    }

    private function late(): string
    {
        return (string) @file_get_contents("$this->folder/late");
    }
}
