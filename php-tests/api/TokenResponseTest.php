<?php

declare(strict_types=1);

use SharedState\Tests\Support\TestCase;

/** Everything that a minting callable may return, and what is made of it. */
final class TokenResponseTest extends TestCase
{
    /** @return array<string, array{string, int}> PHP code of the answer, and the lifetime it means */
    public static function answers(): array
    {
        $header = rtrim(base64_encode('{"alg":"none"}'), '=');
        $jwt = static fn (string $claims): string => "'$header.' . rtrim(strtr(base64_encode($claims), '+/', '-_'), '=') . '.sig'";
        return [
            'expires_in' => ["['access_token' => 'T', 'expires_in' => 3600]", 3600],
            'expires_in as a string' => ["['access_token' => 'T', 'expires_in' => '3600']", 3600],
            'expires_in as a float' => ["['access_token' => 'T', 'expires_in' => 3600.0]", 3600],
            'the word token' => ["['token' => 'T', 'expires_in' => 3600]", 3600],
            'expires_at as an instant' => ["['access_token' => 'T', 'expires_at' => time() + 3600]", 3600],
            'expires_at as ISO 8601 (GitHub)' => ["['token' => 'T', 'expires_at' => gmdate('Y-m-d\\TH:i:s\\Z', time() + 3600)]", 3600],
            'expires_at with an offset' => ["['token' => 'T', 'expires_at' => (new DateTime('+1 hour', new DateTimeZone('+02:00')))->format('c')]", 3600],
            'expires_at as a date' => ["['token' => 'T', 'expires_at' => new DateTimeImmutable('+1 hour')]", 3600],
            'expires_at as a date of a class of its own' => ["['token' => 'T', 'expires_at' => new class('+1 hour') extends DateTime { public function getTimestamp(): int { exit('called'); } }]", 3600],
            'getExpires() as a date' => ["new class { public function getToken() { return 'T'; } public function getExpires() { return new DateTimeImmutable('+1 hour'); } }", 3600],
            'other fields with anything in them' => ["['token' => 'T', 'expires_in' => 3600, 'user' => new ArrayObject, 'raw' => \"\\xff\", \"\\xff\" => 1, 'stream' => STDIN]", 3600],
            'a byte order mark' => ["\"\\u{feff}\" . '{\"access_token\":\"T\",\"expires_in\":3600}'", 3600],
            'an earlier end in another field' => ["['token' => 'T', 'expires_in' => 7200, 'expires_at' => time() + 3600]", 3600],
            'expires_on as a string (Azure)' => ["['access_token' => 'T', 'expires_on' => (string) (time() + 3600)]", 3600],
            'expires' => ["['access_token' => 'T', 'expires' => time() + 3600]", 3600],
            'JSON text' => ["'{\"access_token\":\"T\",\"token_type\":\"Bearer\",\"expires_in\":3600}'", 3600],
            'a JWT with iat and exp' => [$jwt("json_encode(['iat' => time(), 'exp' => time() + 3600])"), 3600],
            'a JWT in access_token' => ["['access_token' => " . $jwt("json_encode(['iat' => time() - 5, 'exp' => time() + 3595])") . ']', 3595],
            'an object of league/oauth2-client' => ["new class { public function getToken() { return 'T'; } public function getExpires() { return time() + 3600; } }", 3600],
        ];
    }

    /** @dataProvider answers */
    public function test_the_lifetime_is_read_from(string $answer, int $lifetime): void
    {
        $said = $this->php(<<<PHP
            \$calls = 0;
            \$mint = function () use (&\$calls) { \$calls++; return $answer; };
            \$tokens = [shared_token_get('crm', \$mint), shared_token_get('crm', \$mint)];
            return [\$tokens, \$calls, shared_token_info('crm'), time()];
            PHP);
        [$tokens, $calls, $info, $now] = $said;
        self::assertSame(1, $calls, 'cached');
        self::assertSame($tokens[0], $tokens[1]);
        self::assertTrue($tokens[0] === 'T' || str_ends_with($tokens[0], '.sig'), $tokens[0]);
        self::assertEqualsWithDelta($lifetime, $info['expires_at'] - $now, 6);
    }

    /** @return array<string, array{string, string}> code of the call's callable and options, and a word of the refusal */
    public static function refused(): array
    {
        return [
            'no lifetime (Salesforce)' => ["fn () => ['access_token' => 'SECRET-T', 'instance_url' => 'https://x']", 'ttl'],
            'a plain string' => ["fn () => 'SECRET-T'", 'ttl'],
            'getExpires() of 0' => ["fn () => new class { function getToken() { return 'SECRET-T'; } function getExpires() { return 0; } }", 'ttl'],
            'no token' => ["fn () => ['expires_in' => 3600]", 'access_token'],
            'an empty token' => ["fn () => ['access_token' => '', 'expires_in' => 3600]", ''],
            'null' => ['fn () => null', ''],
            'a number' => ['fn () => 42', ''],
            'a negative lifetime' => ["fn () => ['access_token' => 'SECRET-T', 'expires_in' => -1]", ''],
            'an expired token' => ["fn () => ['access_token' => 'SECRET-T', 'expires_at' => time() - 10]", ''],
            'a key that is no text' => ["fn () => [\"\\xff\" => 'SECRET-T', 'expires_in' => 3600]", 'only expires_in'],
            'an object as the token' => ["fn () => ['access_token' => new ArrayObject, 'expires_in' => 3600]", '"access_token" is an object of class ArrayObject'],
            'an object that is kept' => ["fn () => ['access_token' => 'SECRET-T', 'expires_in' => 3600, 'user' => new ArrayObject]", '"user" is an object of class ArrayObject', ", ['keep' => ['user']]"],
            'a lifetime that is an object' => ["fn () => ['access_token' => 'SECRET-T', 'expires_in' => new ArrayObject]", '"expires_in" is an object of class ArrayObject'],
            'a lifetime of words' => ["fn () => ['access_token' => 'SECRET-T', 'expires_in' => 'soon']", ''],
        ];
    }

    /** @dataProvider refused */
    public function test_an_answer_that_cannot_be_used_is_an_invalid_value(string $mint, string $word, string $options = ''): void
    {
        $caught = $this->php("return caught(fn () => shared_token_get('crm', $mint$options));");
        self::assertSame('SharedState\\InvalidValue', $caught['class'] ?? null, json_encode($caught));
        self::assertStringContainsString($word, $caught['message']);
        self::assertStringNotContainsString('SECRET-T', $caught['text']);
    }

    public function test_a_date_that_was_never_made_ends_in_phps_own_error(): void
    {
        $said = $this->php(<<<'PHP'
            $date = (new ReflectionClass('DateTimeImmutable'))->newInstanceWithoutConstructor();
            $caught = caught(fn () => shared_token_get('crm', fn () => ['access_token' => 'T', 'expires_at' => $date]));
            usleep(700_000);
            return [$caught['class'], shared_token_get('crm', fn () => 'T', ['ttl' => 60])];
            PHP, ['token.failure_backoff_ms' => 200]);
        self::assertContains($said[0], ['Error', 'DateObjectError']);
        self::assertSame('T', $said[1]);
    }

    /** @return array<string, array{string, string}> */
    public static function noTokens(): array
    {
        return [
            'a form-encoded error' => ['error=bad_verification_code&error_description=The+code+is+incorrect.', 'it says: bad_verification_code: The code is incorrect.'],
            'a proxy' => ['upstream connect error or disconnect/reset before headers', 'has words in it'],
            'markup' => ['<html>502</html>', 'begins like markup'],
            'an issuer that says why' => ['{"error":"invalid_client","error_description":"No such client"}', 'it says: invalid_client: No such client'],
            'a list' => ['["SECRET-T"]', 'begins like JSON, but is no object'],
            'nothing' => ['', 'empty'],
        ];
    }

    /** With `ttl` nothing else shows that it is none. @dataProvider noTokens */
    public function test_what_is_no_token_never_becomes_one(string $answer, string $words): void
    {
        $caught = $this->php('return caught(fn () => shared_token_get("crm", fn () => ' . var_export($answer, true) . ', ["ttl" => 3600]));');
        self::assertSame('SharedState\\InvalidValue', $caught['class'] ?? null, json_encode($caught));
        self::assertStringContainsString($words, $caught['message']);
        self::assertStringNotContainsString('SECRET-T', $caught['text']);
    }

    public function test_an_opaque_token_is_what_the_caller_says_it_is(): void
    {
        [$refused, $taken] = $this->php(<<<'PHP'
            return [caught(fn () => shared_token_get('a', fn () => 'key|with spaces', ['ttl' => 60])),
                shared_token_get('b', fn () => 'key|with spaces', ['ttl' => 60, 'opaque' => true])];
            PHP);
        self::assertSame('SharedState\\InvalidValue', $refused['class'] ?? null);
        self::assertSame('key|with spaces', $taken);
    }

    /** The issuer, or something before it, answers from a cache. */
    public function test_of_an_old_jwt_what_is_left_counts_and_is_said(): void
    {
        $code = <<<'PHP'
            $part = fn (array $json) => rtrim(strtr(base64_encode(json_encode($json)), '+/', '-_'), '=');
            $jwt = fn (int $iat, int $exp) => $part(['alg' => 'RS256']) . '.' . $part(['iat' => $iat, 'exp' => $exp]) . '.c2ln';
            shared_token_get('old', fn () => $jwt(time() - 3540, time() + 60));
            $info = shared_token_info('old');
            return [$info['expires_at'] - time(), sharedstate_status()['lifetimes_contradicted'] ?? 1,
                caught(fn () => shared_token_get('dead', fn () => $jwt(time() - 7200, time() - 3600)))['message']];
            PHP;
        $result = $this->cli($code);
        self::assertMatchesRegularExpression('/"result":\[(59|60),1,/', $result->output);
        self::assertStringContainsString('by this host', $result->output);
        self::assertMatchesRegularExpression('/the lifetimes disagree: "exp" says \d+ s by this host\'s clock, and "exp" says 3600 s; the shorter counts/', $result->errors . $result->output);
    }

    public function test_ttl_helps_an_answer_without_a_lifetime(): void
    {
        $info = $this->php(<<<'PHP'
            shared_token_get('crm', fn () => ['access_token' => 'T', 'instance_url' => 'https://eu1'], ['ttl' => 7200, 'keep' => ['instance_url']]);
            return [shared_token_get('crm'), shared_token_info('crm'), time()];
            PHP);
        self::assertSame('T', $info[0]);
        self::assertSame(['instance_url' => 'https://eu1'], $info[1]['kept']);
        self::assertEqualsWithDelta(7200, $info[1]['expires_at'] - $info[2], 6);
    }

    public function test_a_kept_field_that_contains_the_token_is_left_out(): void
    {
        $kept = $this->php(<<<'PHP'
            $response = fn (mixed $data) => fn () => ['access_token' => 'SECRET-T/"1"', 'expires_in' => 3600, 'data' => $data, 'scope' => ['a']];
            foreach ([['token' => 'SECRET-T/"1"'], ['a', ['SECRET-T/"1"']], 'https://crm.example/?t=SECRET-T/"1"', 'another'] as $i => $data) {
                shared_token_get("crm$i", $response($data), ['keep' => ['data', 'scope']]);
                $kept[] = shared_token_info("crm$i")['kept'];
            }
            return $kept;
            PHP);
        $left = ['scope' => ['a']];
        self::assertSame([$left, $left, $left, ['data' => 'another'] + $left], $kept);
    }

    public static function lifetimes(): array
    {
        return array_map(static fn (int $seconds): array => [$seconds], [5, 30, 60, 120, 300, 3600]);
    }

    /**
     * With naive formulas a margin of 60 s makes a 60 s token uncacheable and a 300 s token never renew early.
     *
     * @dataProvider lifetimes
     */
    public function test_with_default_settings_a_lifetime_is_cached_and_renews_early(int $seconds): void
    {
        [$calls, $info] = $this->php(<<<PHP
            \$calls = 0;
            \$mint = function () use (&\$calls) { \$calls++; return ['access_token' => "T\$calls", 'expires_in' => $seconds]; };
            for (\$i = 0; \$i < 10; \$i++) { shared_token_get('crm', \$mint); }
            return [\$calls, shared_token_info('crm')];
            PHP);
        self::assertSame(1, $calls);
        $margin = min(60, 0.2 * $seconds);
        $usable = $info['usable_until'] - $info['minted_at'];
        self::assertEqualsWithDelta($seconds - $margin, $usable, 1.5);
        self::assertEqualsWithDelta(0.8 * ($seconds - $margin), $info['refresh_at'] - $info['minted_at'], 1.5);
    }

    public function test_the_callable_is_told_the_name_and_the_version(): void
    {
        $said = $this->php(<<<'PHP'
            $told = null;
            shared_token_get('crm:4711', function (array $ticket) use (&$told) { $told = $ticket; return 'T'; }, ['ttl' => 60]);
            return [$told, shared_token_info('crm:4711')['version']];
            PHP);
        self::assertSame('crm:4711', $said[0]['name']);
        self::assertSame($said[1], $said[0]['version']);
    }

    /** @group extension */
    public function test_a_second_process_gets_the_token_of_the_first(): void
    {
        $first = $this->php("return shared_token_get('crm', fn () => 'from-the-first', ['ttl' => 60]);");
        self::assertSame($first, $this->php("return shared_token_get('crm', fn () => 'from-the-second', ['ttl' => 60]);"));
    }
}
