using System.Reflection;

namespace NbdKit.Tests.Conformance;

/// <summary>Every rule of the handshake that a client has to keep is proven by at least one test.</summary>
public sealed class ClientHandshakeCoverageTests
{
    private static readonly int[] NeverGiven = [26, 27, 28, 29];

    private static readonly string[] Others =
    [
        "C053", "C054", "C090", "N02", "TLS_REQUIRE", "CVE_2017_2630", "CVE_2021_20286", "CVE_2022_26495", "CVE_2023_5215",
        "CVE_2024_7383", "CVE_2025_14946", "nbd_client_135",
    ];

    [Test]
    public void Every_rule_has_a_test_that_carries_its_id()
    {
        HashSet<string> tested =
        [
            .. typeof(ClientHandshakeCoverageTests).Assembly.GetTypes()
                .SelectMany(type => type.GetMethods(BindingFlags.Public | BindingFlags.Instance | BindingFlags.DeclaredOnly))
                .SelectMany(method => method.GetCustomAttributes<PropertyAttribute>())
                .SelectMany(property => property.Properties["Rule"].Cast<string>()),
        ];
        IEnumerable<string> rules = Enumerable.Range(1, 40).Except(NeverGiven).Select(i => $"C{i:d3}").Concat(Others);

        Assert.That(rules.Where(rule => !tested.Contains(rule)), Is.Empty, "rules without a test");
    }
}
