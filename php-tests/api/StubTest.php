<?php

declare(strict_types=1);

use SharedState\Tests\Support\Cli;
use SharedState\Tests\Support\TestCase;

/** The stub file is what editors and static analysers believe. Reflection says whether it is true. */
final class StubTest extends TestCase
{
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
        }
        ksort($said);
        echo json_encode($said);
        PHP;

    public function test_the_stub_says_what_reflection_says(): void
    {
        $stub = dirname(__DIR__, 2) . '/stubs/sharedstate.stub.php';
        self::assertFileExists($stub);
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
}
