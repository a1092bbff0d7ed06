using System.Reflection;

namespace NbdKit.Tests.Threats;

/// <summary>Every known threat has a test that carries its id, or a reason why it has none here.</summary>
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

    private static readonly Dictionary<string, string> NotHere = new()
    {
        ["P28"] = "needs a power cut between two connections; TransmissionFlagsTests (S144) shows what they see of each other",
        ["P36"] = "F15 of the fault matrix: a process whose descriptors run out",
        ["N04"] = "F10 of the fault matrix: storms of cancellations; PayloadMemoryTests and RentedArrays count what is rented and returned",
        ["N08"] = "F09 of the fault matrix; each of its rows fails by an exception that nobody observed",
        ["N09"] = "F16 of the fault matrix: a thread pool full of blocking calls",
        ["N11"] = "TlsSessionTests (rule N11) runs one session on one thread, not the whole suite",
        ["N13"] = "needs millions of requests; AllocationTests shows that a request allocates nothing",
        ["N17"] = "F14 of the fault matrix: a process with a hard limit of its heap",
        ["N19"] = "needs a trimmed program",
        ["libnbd-2023-07-block-status"] = "in ClientBlockStatusTests, rules C060 to C068",
        ["CVE-2024-4467"] = "about images that name other files: the tests of qcow2dec, vmdk and vhd refuse them",
        ["nbd-client-aec764d"] = "in ClientOptionTests and ClientExportTests, rule C021",
        ["CVE-2021-3348"] = "a client does not exist before it is connected",
        ["linux-2021-unexpected-messages"] = "in ClientReadReplyTests, rules C075 and C076, but for a reply on another connection",
        ["nbdkit-80033669"] = "the tests of Interop ask with three clients",
        ["nbdkit-d5a4190e"] = "MisbehavingPluginTests; not every capability is lied about",
        ["nbdkit-accept-spin"] = "as P36",
        ["nbdkit-option-memory"] = "OptionTests (P01) bounds what a length field costs; what silent clients cost is F01 and F02 of the "
            + "fault matrix",
        ["nbd-server-simple-read-error"] = "in ReadTests, rule S182",
        ["qemu-tls-iothread"] = "as N11",
        ["libnbd-2023-05-short-reply"] = "in ClientReadReplyTests, rule C082",
    };

    [Test]
    public void Every_threat_has_a_test_or_a_reason()
    {
        HashSet<string> tested = Tested();
        foreach ((string threat, string reason) in NotHere)
        {
            TestContext.Out.WriteLine($"{threat}: {reason}");
        }
        Assert.That(Threats.Where(threat => !tested.Contains(threat) && !NotHere.ContainsKey(threat)), Is.Empty, "threats without a test");
        Assert.That(NotHere.Keys.Where(tested.Contains), Is.Empty, "threats that have a test after all");
    }

    [Test]
    public void Every_id_that_a_test_carries_is_known()
        => Assert.That(Tested().Except(Threats), Is.Empty);

    private static HashSet<string> Tested()
        => [.. typeof(ThreatCoverageTests).Assembly.GetTypes()
            .SelectMany(type => type.GetMethods(BindingFlags.Public | BindingFlags.Instance | BindingFlags.DeclaredOnly))
            .SelectMany(method => method.GetCustomAttributes<PropertyAttribute>())
            .SelectMany(property => property.Properties["Threat"].Cast<string>())];
}
