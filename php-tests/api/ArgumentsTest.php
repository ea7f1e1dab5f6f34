<?php

declare(strict_types=1);

use SharedState\Tests\Support\TestCase;

final class ArgumentsTest extends TestCase
{
    public static function badNames(): array
    {
        return [
            'empty' => ["''", 'empty'],
            'a new line' => ['"a\nb"', 'control'],
            'a zero byte' => ['"a\0b"', 'control'],
            'DEL' => ['"a\x7f"', 'control'],
            '201 bytes' => ["str_repeat('n', 201)", '200'],
        ];
    }

    /** @dataProvider badNames */
    public function test_a_bad_name_is_a_value_error_before_anything_is_minted(string $name, string $word): void
    {
        $caught = $this->php("return caught(fn () => shared_token_get($name, function () { note('start', 'bad'); return 'T'; }, ['ttl' => 60]));");
        self::assertSame('ValueError', $caught['class'] ?? null, json_encode($caught));
        self::assertStringContainsString($word, $caught['message']);
        self::assertSame(0, $this->mints->mints());
    }

    public function test_any_other_bytes_are_a_name_of_their_own(): void
    {
        $tokens = $this->php(<<<'PHP'
            $names = ["\xff\xfe", 'ü', 'crm', 'CRM', 'crm ', '{crm}', 'a:b', 'a%3Ab', str_repeat('n', 200), '0'];
            $tokens = [];
            foreach ($names as $i => $name) { $tokens[] = shared_token_get($name, fn () => "T$i", ['ttl' => 60]); }
            return $tokens;
            PHP);
        self::assertSame(['T0', 'T1', 'T2', 'T3', 'T4', 'T5', 'T6', 'T7', 'T8', 'T9'], $tokens);
    }

    public function test_weak_mode_makes_scalars_names_as_php_does(): void
    {
        // pages/cli.php declares no strict types for the code of a test, so this is weak mode.
        $tokens = $this->php(<<<'PHP'
            class Name { public function __toString() { return 'object'; } }
            return [
                shared_token_get(42, fn () => 'int', ['ttl' => 60]), shared_token_get('42'),
                shared_token_get(1.5, fn () => 'float', ['ttl' => 60]), shared_token_get('1.5'),
                shared_token_get(true, fn () => 'bool', ['ttl' => 60]), shared_token_get('1'),
                shared_token_get(new Name, fn () => 'object', ['ttl' => 60]), shared_token_get('object'),
            ];
            PHP);
        self::assertSame(['int', 'int', 'float', 'float', 'bool', 'bool', 'object', 'object'], $tokens);
    }

    public function test_strict_mode_refuses_them(): void
    {
        $file = "$this->folder/strict.php";
        file_put_contents($file, '<?php declare(strict_types=1); return [
            caught(fn () => shared_token_get(42, fn () => "T", ["ttl" => 60])),
            caught(fn () => shared_token_get([], fn () => "T")),
            caught(fn () => shared_token_get("crm", "no such function")),
            caught(fn () => shared_token_get()),
        ];');
        $caught = $this->php('return require ' . var_export($file, true) . ';');
        self::assertSame(['TypeError', 'TypeError', 'TypeError', 'ArgumentCountError'], array_column($caught, 'class'));
        self::assertStringContainsString('shared_token_get(): Argument #1 ($name)', $caught[0]['message']);
    }

    public static function badOptions(): array
    {
        return [
            'unknown' => ["['tll' => 60]", 'tll'],
            'a number as name' => ['[60]', 'ttl'],
            'ttl of 0' => ["['ttl' => 0]", 'ttl'],
            'ttl below 0' => ["['ttl' => -5]", 'ttl'],
            'ttl of words' => ["['ttl' => 'long']", 'ttl'],
            'margin below 0' => ["['margin' => -1]", 'margin'],
            'ratio of 1' => ["['refresh_ratio' => 1.0]", 'refresh_ratio'],
            'ratio of 0' => ["['refresh_ratio' => 0]", 'refresh_ratio'],
            'wait below 0' => ["['wait_ms' => -1]", 'wait_ms'],
            'store_down' => ["['store_down' => 'panic']", 'store_down'],
            'keep of the token' => ["['keep' => ['access_token']]", 'keep'],
            'fingerprint of an object' => ["['fingerprint' => new stdClass]", 'fingerprint'],
        ];
    }

    /** @dataProvider badOptions */
    public function test_a_bad_option_is_a_refusal_that_names_it(string $options, string $name): void
    {
        $caught = $this->php("return caught(fn () => shared_token_get('crm', function () { note('start', 'crm'); return 'T'; }, $options));");
        self::assertContains($caught['class'] ?? null, ['ValueError', 'TypeError'], json_encode($caught));
        self::assertStringContainsString($name, $caught['message']);
        self::assertSame(0, $this->mints->mints());
    }

    public function test_an_unknown_option_lists_the_known_ones(): void
    {
        $caught = $this->php("return caught(fn () => shared_token_get('crm', fn () => 'T', ['tll' => 60]));");
        self::assertSame('ValueError', $caught['class'] ?? null);
        foreach (['ttl', 'margin', 'refresh_ratio', 'wait_ms', 'fingerprint', 'rejected', 'keep', 'store_down'] as $known) {
            self::assertStringContainsString($known, $caught['message']);
        }
    }

    public function test_another_fingerprint_is_another_token(): void
    {
        $said = $this->php(<<<'PHP'
            $get = fn ($fingerprint, $token) => shared_token_get('crm', fn () => $token, ['ttl' => 60, 'fingerprint' => $fingerprint]);
            return [
                $get('read', 'reader'), $get('write', 'writer'), $get('read', 'again'),
                $get(['scope' => 'a', 'audience' => 'b'], 'array'), $get(['audience' => 'b', 'scope' => 'a'], 'other order'),
                shared_token_get('crm', fn () => 'none', ['ttl' => 60]),
            ];
            PHP);
        self::assertSame(['reader', 'writer', 'reader', 'array', 'array', 'none'], $said);
    }

    public function test_the_keys_of_a_fingerprint_may_be_any_bytes(): void
    {
        $said = $this->php(<<<'PHP'
            $get = fn ($fingerprint, $token) => shared_token_get('crm', fn () => $token, ['ttl' => 60, 'fingerprint' => $fingerprint]);
            return [$get(["\xff" => 1], 'one'), $get(["\xff" => 2], 'two'), $get(["\xff" => 1], 'again'), $get(['a' => ["b\xfe" => 1]], 'deep')];
            PHP);
        self::assertSame(['one', 'two', 'one', 'deep'], $said);
    }

    public function test_no_token_and_no_callable_is_no_source(): void
    {
        $caught = $this->php("return caught(fn () => shared_token_get('crm'));");
        self::assertSame('SharedState\\NoSource', $caught['class'] ?? null, json_encode($caught));
    }
}
