<?php

declare(strict_types=1);

use SharedState\Tests\Support\TestCase;

/**
 * What is called, and what it returns, lives as long as it is needed, whatever the code that is called does to the
 * variables it came from.
 */
final class OwnershipTest extends TestCase
{
    /** A source that lets go of itself while it runs, and takes the memory that is free then. */
    private const SOURCE = <<<'PHP'
        class Another { public $name = 'another'; public $x = 2; }
        class Source {
            public $name = 'source'; public $y = 1;
            function get() { let_go(); return $this->told(); }
            function __invoke() { let_go(); return $this->told(); }
            private function told() {
                global $said;
                $said = [get_class($this), $this->name];
                return ['base' => 'EUR', 'rates' => ['USD' => '1.5'], 'access_token' => 'T', 'expires_in' => 60];
            }
            function __destruct() { global $said; $said['destroyed'] = true; }
        }
        function let_go() {
            global $callable, $object, $kept;
            $callable = $object = null;
            $kept = array_map(fn () => new Another, range(1, 50));
        }
        global $callable, $object, $said;
        PHP;

    /** @return array<string, array{string}> */
    public static function callables(): array
    {
        $calls = [
            'fx_rate, an option by reference' => "fx_rate('EUR', 'USD', null, ['fetch' => &\$callable])",
            'fx_quote, an option by reference' => "fx_quote('10', 'EUR', 'USD', ['fetch' => &\$callable])",
            'fx_convert, an option by reference' => "fx_convert('10', 'EUR', 'USD', 2, ['fetch' => &\$callable])",
            'fx_rates, an option by reference' => "fx_rates('EUR', ['fetch' => &\$callable])",
            'fx_rate_info, an option by reference' => "fx_rate_info('EUR', 'USD', ['fetch' => &\$callable])",
            'fx_refresh, an option by reference' => "fx_refresh(null, ['fetch' => &\$callable])",
            'fx_rate, an option' => "fx_rate('EUR', 'USD', null, ['fetch' => \$callable])",
            'fx_rate, a parameter' => "fx_rate('EUR', 'USD', \$callable)",
            'fx_refresh, a parameter' => 'fx_refresh($callable)',
            'shared_token_get' => "shared_token_get('crm', \$callable)",
        ];
        $forms = [
            'a method' => '$callable = [new Source, "get"];',
            'a method of an object by reference' => '$object = new Source; $callable = [&$object, "get"];',
            'an invokable object' => '$callable = new Source;',
            'a closure' => '$callable = (new Source)->get(...);',
        ];
        $all = [];
        foreach ($calls as $call => $code) {
            foreach ($forms as $form => $begin) {
                $all["$call, $form"] = ["$begin $code;"];
            }
        }
        return $all;
    }

    /** @dataProvider callables */
    public function test_what_runs_lives_until_it_has_returned(string $code): void
    {
        $said = $this->php(self::SOURCE . " $code \$before = \$said; \$kept = null; return \$before;");
        self::assertSame('Source', $said[0] ?? null, json_encode($said));
        self::assertSame('source', $said[1]);
    }

    /** The last owner is ours, and gives it back. */
    public function test_what_ran_is_let_go_afterwards(): void
    {
        $said = $this->php(self::SOURCE . ' $callable = [new Source, "get"]; fx_rate("EUR", "USD", null, ["fetch" => &$callable]); return $said;');
        self::assertTrue($said['destroyed'] ?? null, json_encode($said));
    }

    public function test_a_name_that_the_callable_changes_is_the_one_that_was_asked_for(): void
    {
        $names = $this->php(<<<'PHP'
            $sheet = str_repeat('s', 40);
            $fetch = function () use (&$sheet) { $sheet = null; $GLOBALS['kept'] = [str_repeat('x', 40), str_repeat('y', 41)];
                return ['base' => 'EUR', 'rates' => ['USD' => '1.5']]; };
            fx_rate('EUR', 'USD', null, ['sheet' => &$sheet, 'fetch' => $fetch]);
            return array_column(sharedstate_entries(), 'name');
            PHP);
        self::assertSame([str_repeat('s', 40)], $names);
    }

    /** An autoloader runs when PHP looks whether a class has the method. */
    public function test_an_autoloader_that_takes_the_callable_away_takes_nothing_from_us(): void
    {
        $said = $this->php(<<<'PHP'
            $callable = ['Late' . getmypid(), 'get'];
            spl_autoload_register(function ($class) use (&$callable) {
                $callable = null;
                $GLOBALS['kept'] = array_map(fn ($n) => str_repeat('z', $n), range(1, 60));
                eval("class $class { static function get() { return ['base' => 'EUR', 'rates' => ['USD' => '1.5']]; } }");
            });
            return fx_rate('EUR', 'USD', null, ['fetch' => &$callable]);
            PHP);
        self::assertSame(1.5, $said);
    }

    /** @return array<string, array{string}> */
    public static function results(): array
    {
        return [
            'a function that returns by reference' => ['function &issue() { global $token; return $token; }'],
            'a function' => ['function issue() { global $token; return $token; }'],
        ];
    }

    /** @dataProvider results */
    public function test_a_token_object_lives_until_it_has_been_read(string $mint): void
    {
        $said = $this->php(<<<'PHP'
            class Another { public $value = 'another'; function getExpires() { return 1; } }
            class Token {
                public $value = 'token';
                function getToken() { $this->letGo(); return $this->value; }
                function getExpires() { return get_class($this) === 'Token' ? time() + 100 : 1; }
                private function letGo() { global $token, $kept; $token = null; $kept = array_map(fn () => new Another, range(1, 50)); }
            }
            global $token;
            $token = new Token;
            PHP . "\n$mint\n" . 'return [shared_token_get("crm", "issue"), shared_token_info("crm")["expires_at"] - time()];');
        self::assertSame('token', $said[0]);
        self::assertEqualsWithDelta(100, $said[1], 2);
    }

    /** @return array<string, array{string, string}> */
    public static function methods(): array
    {
        return [
            'a protected getToken()' => ['protected function getToken() { return "hidden"; }', 'an object of class'],
            'a private getToken()' => ['private function getToken() { return "hidden"; }', 'an object of class'],
            'a private getExpires()' => ['public function getToken() { return "T"; } private function getExpires() { return 5; }', ''],
            '__call' => ['function __call($name, $arguments) { return $name === "getToken" ? "T" : null; }', ''],
            '__call beside a private getToken()' => ['private function getToken() { return "hidden"; } function __call($name, $arguments) { return $name === "getToken" ? "T" : null; }', ''],
        ];
    }

    /** @dataProvider methods */
    public function test_only_what_is_public_is_called(string $methods, string $refused): void
    {
        $said = $this->php("return caught(fn () => shared_token_get('crm', fn () => new class { $methods }, ['ttl' => 60]));");
        if ($refused === '') {
            self::assertSame('T', $said['returned'] ?? null, json_encode($said));
        } else {
            self::assertStringContainsString($refused, $said['message'] ?? '');
        }
    }

    /** @group extension */
    public function test_a_deprecated_form_is_told_of_once(): void
    {
        $told = $this->php(<<<'PHP'
            class Issuer {
                static function token() { return shared_token_get('crm', 'self::mint', ['ttl' => 60]); }
                private static function mint() { return 'T'; }
            }
            $told = 0;
            set_error_handler(function () use (&$told) { $told++; return true; });
            return [Issuer::token(), $told];
            PHP);
        self::assertSame(['T', PHP_VERSION_ID < 80200 ? 0 : 1], $told);
    }
}
