using System.Reflection;
using NUnit.Framework.Interfaces;

namespace NbdKit.Tests.Conformance;

/// <summary>Every rule of the protocol that a server has to keep is proven by at least one test.</summary>
public sealed class ConformanceCoverageTests
{
    private static readonly (int First, int Last)[] Ranges =
    [
        (1, 16), (20, 32), (35, 41), (44, 54), (60, 81), (85, 108), (110, 133), (140, 147), (150, 178), (180, 200), (205, 220),
        (225, 238), (245, 249),
    ];

    private static readonly string[] Others =
    [
        "N01", "N05", "N06", "N11", "N15",
        "P01", "P04", "P05", "P06", "P07", "P08", "P09", "P10", "P11", "P12", "P13", "P14", "P16", "P17", "P18", "P19", "P20", "P21",
        "P22", "P23", "P24", "P25", "P26", "P27", "P29", "P30", "P31", "P32", "P34", "P35", "P38", "R01",
        "X01", "X02", "X03", "X04", "X05", "X06", "X07", "X08", "X09", "X10", "X11", "X12", "X13", "X14", "X15", "X16", "X17", "X18",
        "X19", "X20", "X21", "X22", "X23", "X24", "X25",
    ];

    [Test]
    public void Every_rule_has_a_test_that_carries_its_id()
    {
        HashSet<string> tested = [.. Tests().SelectMany(RulesOf)];
        IEnumerable<string> rules = Ranges
            .SelectMany(range => Enumerable.Range(range.First, range.Last - range.First + 1).Select(i => $"S{i:d3}"))
            .Concat(Others);

        Assert.That(rules.Where(rule => !tested.Contains(rule)), Is.Empty, "rules without a test");
    }

    [Test]
    public void Every_test_that_carries_an_id_has_it_in_its_name()
        => Assert.That(
            Tests().SelectMany(
                test => RulesOf(test).Where(rule => !test.Name.Contains(rule)), (test, rule) => $"{test.Name}: {rule}"),
            Is.Empty);

    private static IEnumerable<MethodInfo> Tests()
        => typeof(ConformanceCoverageTests).Assembly.GetTypes()
            .SelectMany(type => type.GetMethods(BindingFlags.Public | BindingFlags.Instance | BindingFlags.DeclaredOnly))
            .Where(method => method.GetCustomAttributes().Any(a => a is ITestBuilder or ISimpleTestBuilder));

    private static List<string> RulesOf(MethodInfo test)
        => [.. test.GetCustomAttributes<PropertyAttribute>()
            .Where(property => property.Properties.ContainsKey("Rule"))
            .Select(property => (string)property.Properties.Get("Rule")!)];
}
