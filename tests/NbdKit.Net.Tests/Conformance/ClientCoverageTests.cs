using System.Reflection;

namespace NbdKit.Tests.Conformance;

/// <summary>Every rule of the transmission phase that a client has to keep is proven by at least one test.</summary>
public sealed class ClientCoverageTests
{
    // C053, C054 belong to the handshake; C069 was never given.
    private static readonly int[] Elsewhere = [53, 54, 69];

    private static readonly string[] Others = ["CVE_2019_14842", "CVE_2023_5871", "CVE_2024_49855"];

    [Test]
    public void Every_rule_has_a_test_that_carries_its_id()
    {
        HashSet<string> tested =
        [
            .. typeof(ClientCoverageTests).Assembly.GetTypes()
                .SelectMany(type => type.GetMethods(BindingFlags.Public | BindingFlags.Instance | BindingFlags.DeclaredOnly))
                .SelectMany(method => method.GetCustomAttributes<PropertyAttribute>())
                .SelectMany(property => property.Properties["Rule"].Cast<string>()),
        ];
        IEnumerable<string> rules = Enumerable.Range(41, 49).Except(Elsewhere).Select(i => $"C{i:d3}").Concat(Others);

        Assert.That(rules.Where(rule => !tested.Contains(rule)), Is.Empty, "rules without a test");
    }
}
