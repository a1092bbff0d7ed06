using System.Reflection;

namespace NbdKit.Tests.Threats;

/// <summary>Every known threat has a test that carries its id, or a row of the fault matrix that is for it.</summary>
public sealed class ThreatCoverageTests
{
    private static readonly string[] Threats =
    [
        .. Enumerable.Range(1, 39).Select(i => $"P{i:d2}"), .. Enumerable.Range(1, 20).Select(i => $"N{i:d2}"),

        // Servers.
        "CVE-2005-3534", "CVE-2011-0530", "CVE-2011-1925", "CVE-2013-6410", "CVE-2013-7441", "CVE-2015-0847", "CVE-2022-26495",
        "CVE-2022-26496", "CVE-2017-7539", "CVE-2017-9524", "CVE-2017-10664", "CVE-2017-15118", "CVE-2017-15119", "CVE-2020-10761",
        "CVE-2024-7409", "CVE-2019-14850", "CVE-2019-14851", "CVE-2021-3716", "CVE-2025-47711", "CVE-2025-47712",

        // Clients.
        "CVE-2019-14842", "libnbd-tls-downgrade", "CVE-2021-20286", "CVE-2022-0485", "libnbd-2023-07-block-status", "CVE-2023-5215",
        "CVE-2023-5871", "CVE-2024-7383", "CVE-2025-14946", "CVE-2017-2630", "CVE-2024-4467", "nbd-client-569070d",
        "nbd-client-aec764d", "CVE-2021-3348", "CVE-2024-49855", "linux-2021-unexpected-messages",

        // Without a number.
        "nbdkit-9d82aa4f", "nbdkit-282c3b03", "nbdkit-6c5faac6", "nbdkit-80033669", "nbdkit-d5a4190e", "nbdkit-1.40-ip-rules",
        "nbdkit-1.44-names-in-logs", "nbdkit-accept-spin", "nbdkit-option-memory", "nbd-server-425235a", "nbd-server-b689690",
        "nbd-server-4c924b7", "nbd-server-575f822", "nbd-server-simple-read-error", "qemu-abort-before-tls", "qemu-tls-iothread",
        "libnbd-6f238ad", "libnbd-a81c927", "libnbd-2023-05-short-reply", "CVE-2011-0411",
    ];

    /// <summary>Threats that need a process, or a build, of their own, and the file that holds the row or check for them.</summary>
    private static readonly Dictionary<string, (string Where, string Carries)> Elsewhere = new()
    {
        // A process whose descriptors run out.
        ["P36"] = ("tests/NbdKit.Net.Faults/Rows/NoDescriptors.cs", "\"F15\""),
        ["nbdkit-accept-spin"] = ("tests/NbdKit.Net.Faults/Rows/NoDescriptors.cs", "\"F15\""),

        // A program that is published trimmed, which takes longer than a test may.
        ["N19"] = (".ci/pack-check", "PublishTrimmed"),
    };

    [Test]
    public void Every_threat_has_a_test_or_a_row_of_the_fault_matrix()
    {
        HashSet<string> tested = Tested();
        Assert.That(Threats.Where(threat => !tested.Contains(threat) && !Elsewhere.ContainsKey(threat)), Is.Empty, "threats without a test");
        Assert.That(Elsewhere.Keys.Where(tested.Contains), Is.Empty, "threats that have a test here after all");
        Assert.That(Elsewhere.Keys.Except(Threats), Is.Empty, "no such threats");
    }

    [Test]
    public void What_is_tested_elsewhere_is_there()
    {
        foreach ((string threat, (string where, string carries)) in Elsewhere)
        {
            string path = Path.Combine(Sources(), where);
            Assert.That(path, Does.Exist, threat);
            Assert.That(File.ReadAllText(path), Does.Contain(carries), threat);
            if (where.EndsWith(".cs", StringComparison.Ordinal))
            {
                string row = Path.GetFileNameWithoutExtension(where);
                Assert.That(
                    File.ReadAllText(Path.Combine(Sources(), "tests/NbdKit.Net.Faults/FaultMatrix.cs")), Does.Contain($"new {row}()"), threat);
            }
        }
    }

    [Test]
    public void Every_id_that_a_test_carries_is_known()
        => Assert.That(Tested().Except(Threats), Is.Empty);

    private static string Sources()
    {
        string? folder = TestContext.CurrentContext.TestDirectory;
        while (folder is not null && !File.Exists(Path.Combine(folder, "NbdKit.Net.sln")))
        {
            folder = Path.GetDirectoryName(folder);
        }
        return folder ?? throw new InvalidOperationException("The tests do not lie in their repository.");
    }

    private static HashSet<string> Tested()
        => [.. typeof(ThreatCoverageTests).Assembly.GetTypes()
            .SelectMany(type => type.GetMethods(BindingFlags.Public | BindingFlags.Instance | BindingFlags.DeclaredOnly))
            .SelectMany(method => method.GetCustomAttributes<PropertyAttribute>())
            .SelectMany(property => property.Properties["Threat"].Cast<string>())];
}
