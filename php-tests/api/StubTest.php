<?php

declare(strict_types=1);

use SharedState\Tests\Support\Cli;
use SharedState\Tests\Support\TestCase;

/** The stub file is what editors and static analysers believe. Reflection says whether it is true. */
final class StubTest extends TestCase
{
    private const FILE = __DIR__ . '/../../stubs/sharedstate.stub.php';

    /** By function, the arguments before `$options`, of a call that asks nobody. */
    private const ARGUMENTS = [
        'shared_token_get' => "'crm', null", 'shared_token_invalidate' => "'crm', null", 'shared_token_info' => "'crm'",
        'fx_rate' => "'EUR', 'USD', null", 'fx_convert' => "'1', 'EUR', 'USD', null", 'fx_quote' => "'1', 'EUR', 'USD'",
        'fx_rates' => 'null', 'fx_rate_info' => "'EUR', 'USD'", 'fx_refresh' => 'null',
    ];

    private const DESCRIBE = <<<'PHP'
        $said = [];
        foreach ($functions as $name) {
            $function = new ReflectionFunction($name);
            $parameters = [];
            foreach ($function->getParameters() as $parameter) {
                $parameters[] = [
                    $parameter->getName(), (string) $parameter->getType(), $parameter->isOptional(),
                    $parameter->isDefaultValueAvailable() ? $parameter->getDefaultValue() : 'none',
                    $parameter->isVariadic(), $parameter->isPassedByReference(),
                ];
            }
            $said[$name] = [(string) $function->getReturnType(), $parameters];
        }
        foreach ($classes as $name) {
            $class = new ReflectionClass($name);
            $said[$name] = [$class->getParentClass() ? $class->getParentClass()->getName() : null, $class->isFinal(), $class->isAbstract()];
            foreach ($class->getProperties() as $property) {
                if ($property->getDeclaringClass()->getName() === $name) {
                    $said[$name][] = [$property->getName(), (string) $property->getType(), $property->getModifiers()];
                }
            }
            foreach ($class->getMethods() as $method) {
                if ($method->getDeclaringClass()->getName() === $name) {
                    $said[$name][] = [$method->getName(), array_map(fn ($it) => [$it->getName(), (string) $it->getType(), $it->isOptional()
                        ? $it->getDefaultValue() : 'none'], $method->getParameters())];
                }
            }
        }
        ksort($said);
        echo json_encode($said);
        PHP;

    /** @group extension */
    public function test_the_stub_says_what_reflection_says(): void
    {
        $stub = realpath(self::FILE);
        $real = Cli::run(['-r', '$r = new ReflectionExtension("sharedstate"); $functions = array_map("strtolower", array_keys($r->getFunctions())); $classes = $r->getClassNames();' . self::DESCRIBE]);
        $told = Cli::run(['-r', '$f = get_defined_functions()["user"]; $c = get_declared_classes(); require ' . var_export($stub, true)
            . '; $functions = array_diff(get_defined_functions()["user"], $f); $classes = array_diff(get_declared_classes(), $c);' . self::DESCRIBE], loaded: false);
        self::assertSame(0, $real->status, $real->all());
        self::assertSame(0, $told->status, $told->all());
        self::assertSame(json_decode($real->output, true), json_decode($told->output, true));
        self::assertStringContainsString('shared_token_get', $real->output);
    }

    public function test_a_rejected_token_is_a_sensitive_parameter(): void
    {
        $said = $this->php(<<<'PHP'
            return array_map(fn ($a) => $a->getName(), (new ReflectionFunction('shared_token_invalidate'))->getParameters()[1]->getAttributes());
            PHP);
        self::assertSame(['SensitiveParameter'], $said);
    }

    public function test_each_array_and_callable_is_described_by_its_shape(): void
    {
        foreach ($this->stubbed()['functions'] as $name => [$doc, $parameters, $return]) {
            foreach ($parameters as [$parameter, $type]) {
                if (preg_match('/array|callable/', $type) === 1) {
                    self::assertMatchesRegularExpression('/@param (array\{|\(callable\(array\{).*\$' . $parameter . '\b/', $doc, "$name: \$$parameter");
                }
            }
            if (preg_match('/array/', $return) === 1) {
                self::assertMatchesRegularExpression('/@return (list<)?array(\{|<)/', $doc, $name);
            }
        }
    }

    public function test_the_options_are_those_that_a_refusal_lists(): void
    {
        $functions = $this->stubbed()['functions'];
        foreach (self::ARGUMENTS as $name => $arguments) {
            $caught = $this->php("return caught(fn () => $name($arguments, ['no such option' => 1]));");
            self::assertSame(1, preg_match('/the known ones are (.+)$/', $caught['message'] ?? '', $known), "$name: " . json_encode($caught));
            self::assertSame(1, preg_match('/@param (array\{.+\}) \$options/', $functions[$name][0], $shape), $name);
            self::assertSame(explode(', ', $known[1]), array_keys(self::shape($shape[1])), $name);
        }
        $withOptions = array_filter($functions, static fn (array $function): bool => in_array('options', array_column($function[1], 0), true));
        self::assertSame([], array_diff_key($withOptions, self::ARGUMENTS), 'a function was not asked');
    }

    public function test_what_comes_back_has_the_shape_that_is_told(): void
    {
        $said = $this->php(<<<'PHP'
            $o = ['fetch' => fn () => ['base' => 'EUR', 'rates' => ['USD' => 1.1], 'timestamp' => time()]];
            $said = ['fx_quote' => fx_quote('1', 'EUR', 'USD', $o), 'fx_rate_info' => fx_rate_info('EUR', 'USD'), 'fx_rates' => fx_rates(),
                'fx_refresh' => fx_refresh(null, $o)];
            caught(fn () => shared_token_get('bad', fn () => throw new RuntimeException('no')));
            shared_token_get('crm', function () use (&$said) {
                $said['sharedstate_entries'] = sharedstate_entries();
                return 'T';
            }, ['ttl' => 60]);
            $said['shared_token_info'] = shared_token_info('crm');
            $said['sharedstate_entries'] = [...$said['sharedstate_entries'], ...sharedstate_entries()];
            $said['sharedstate_status'] = sharedstate_status();
            $said['shared_token_invalidate_all'] = shared_token_invalidate_all();
            return $said;
            PHP);
        $types = [];
        foreach ($this->stubbed()['functions'] as $name => [$doc]) {
            if (preg_match('/@return ((?:list<)?array.*)/s', (string) preg_replace('/\n\s*\*\s?/', "\n", $doc), $match) === 1) {
                $types[$name] = self::split($match[1], ["\n", ' '])[0];
            }
        }
        self::assertEqualsCanonicalizing(array_keys($said), array_keys($types), 'each shape is compared');
        foreach ($said as $name => $answer) {
            self::assertSame([], self::differences($types[$name], $answer, $name));
        }
        foreach (['flight', 'backoff', 'rates', 'version'] as $key) {
            self::assertNotSame([], array_filter(array_column($said['sharedstate_entries'], $key)), "$key is compared");
        }
    }

    public function test_the_counters_it_names_are_counted(): void
    {
        preg_match_all('/`(\w+)`/', strstr($this->stubbed()['functions']['sharedstate_status'][0], '@return'), $named);
        self::assertNotSame([], $named[1]);
        self::assertSame([], array_diff($named[1], array_keys($this->php('return sharedstate_status();'))));
    }

    public function test_what_is_thrown_exists_and_each_exception_is_described_and_thrown(): void
    {
        ['functions' => $functions, 'classes' => $classes] = $this->stubbed();
        preg_match_all('/@throws (\S+)/', implode("\n", array_column($functions, 0)), $thrown);
        $thrown = array_values(array_unique($thrown[1]));
        self::assertSame([], $this->php('return array_values(array_filter(' . var_export($thrown, true) . ', fn ($name) => !is_a($name, Throwable::class, true)));'));
        foreach ($classes as $class => $doc) {
            self::assertNotSame('', $doc, "$class is not described");
            if (!in_array($class, ['SharedState\\Exception', 'SharedState\\RetryLater'], true)) {
                self::assertContains("\\$class", $thrown, "$class is thrown by nobody");
            }
        }
        foreach ($functions as $name => [$doc]) {
            $wanted = $name === 'sharedstate\\renew_deferred' ? [] : ['\SharedState\ConfigError'];
            self::assertSame($wanted, array_values(array_filter($wanted, static fn (string $class): bool => str_contains($doc, "@throws $class"))), $name);
        }
    }

    /** @group extension */
    public function test_its_settings_are_those_of_the_extension(): void
    {
        preg_match_all('/^ \*     (sharedstate\.\S+) =(?: (.*))?$/m', file_get_contents(self::FILE), $told);
        $real = Cli::run(['-r', 'echo json_encode(array_map(fn ($it) => [(string) $it["global_value"], $it["access"]], ini_get_all("sharedstate")));']);
        $wanted = array_map(static fn (string $default): array => [$default, 4 /* INI_SYSTEM */], array_combine($told[1], $told[2]));
        self::assertGreaterThan(30, count($wanted));
        self::assertEquals($wanted, json_decode($real->output, true), $real->errors);
    }

    /** @return array{functions: array<string, array{string, list<array{string, string}>, string}>, classes: array<string, string>} with their comments */
    private function stubbed(): array
    {
        $said = Cli::run(['-r', '$f = get_defined_functions()["user"]; $c = get_declared_classes(); require ' . var_export(self::FILE, true) . ';' . <<<'PHP'
            foreach (array_diff(get_defined_functions()["user"], $f) as $name) {
                $function = new ReflectionFunction($name);
                $parameters = array_map(fn ($it) => [$it->getName(), (string) $it->getType()], $function->getParameters());
                $said["functions"][$name] = [(string) $function->getDocComment(), $parameters, (string) $function->getReturnType()];
            }
            foreach (array_diff(get_declared_classes(), $c) as $name) {
                $said["classes"][$name] = (string) (new ReflectionClass($name))->getDocComment();
            }
            echo json_encode($said);
            PHP], loaded: false);
        self::assertSame(0, $said->status, $said->all());
        return json_decode($said->output, true);
    }

    /** @return array<string, string> the type of each key of `array{key: type, key?: type}` */
    private static function shape(string $text): array
    {
        self::assertMatchesRegularExpression('/^array\{.*\}$/s', $text);
        $shape = [];
        foreach (self::split(substr($text, 6, -1), [',']) as $part) {
            [$key, $type] = explode(':', $part, 2);
            $shape[rtrim($key, '?')] = trim($type);
        }
        return $shape;
    }

    /**
     * @param list<string> $separators what is within braces of any kind stays together
     * @return list<string>
     */
    private static function split(string $text, array $separators): array
    {
        [$parts, $depth] = [[''], 0];
        foreach (str_split($text) as $character) {
            $depth += (int) in_array($character, ['{', '(', '<'], true) - (int) in_array($character, ['}', ')', '>'], true);
            in_array($character, $separators, true) && $depth === 0 ? $parts[] = '' : $parts[array_key_last($parts)] .= $character;
        }
        return array_values(array_filter(array_map(trim(...), $parts), static fn (string $part): bool => $part !== ''));
    }

    /** @return list<string> where a value, as JSON has it, is not of its type */
    private static function differences(string $type, mixed $value, string $at): array
    {
        $nearest = null;
        foreach (self::split($type, ['|']) as $one) {
            $found = self::differencesFrom($one, $value, $at);
            if ($found === []) {
                return [];
            }
            // Of `array{…}|null` the array is meant where an array came.
            $nearest = is_array($value) && str_contains($one, 'array') ? $found : $nearest;
        }
        return $nearest ?? ["$at is " . json_encode($value) . ", told is $type"];
    }

    /** @return list<string> */
    private static function differencesFrom(string $type, mixed $value, string $at): array
    {
        $isArray = is_array($value) && str_contains($type, 'array');
        if ($isArray && str_starts_with($type, 'array{')) {
            $shape = self::shape($type);
            $found = array_keys($value) === array_keys($shape) ? [] : ["$at has the keys " . implode(', ', array_keys($value)) . ', told are ' . implode(', ', array_keys($shape))];
            foreach (array_intersect_key($shape, $value) as $key => $of) {
                array_push($found, ...self::differences($of, $value[$key], "$at.$key"));
            }
            return $found;
        }
        if ($isArray && preg_match('/^(list|array)<(.*)>$/s', $type, $match) === 1) {
            $found = $match[1] === 'list' && !array_is_list($value) ? ["$at is no list"] : [];
            $of = self::split($match[2], [',']);
            foreach ($value as $key => $element) {
                array_push($found, ...self::differences(end($of), $element, "$at.$key"));
            }
            return $found;
        }
        $fits = match ($type) {
            'mixed' => true,
            'numeric-string' => is_string($value) && is_numeric($value),
            'string', 'int', 'bool', 'null' => get_debug_type($value) === $type,
            default => is_string($value) && $type === "'$value'",
        };
        return $fits ? [] : ["$at is " . json_encode($value) . ", told is $type"];
    }
}
