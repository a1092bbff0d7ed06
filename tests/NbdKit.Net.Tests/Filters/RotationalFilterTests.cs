using NbdKit.Filters;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Filters;

public class RotationalFilterTests
{
    [TestCase(null, true), TestCase("true", true), TestCase("0", false)]
    public async Task What_is_said_is_told(string? given, bool expected)
    {
        var parameters = new NbdParameters("rotational", given is null ? [] : [new("rotational", given)]);
        await using NbdBackend chain = NbdBackend.Compose(
            new ModelPlugin(new byte[512], ModelPlugin.Everything with { IsRotational = !expected }), RotationalFilter.Entry.Create(parameters));
        await using NextContext disk = await chain.OpenAsync();
        Assert.That(disk.Info.IsRotational, Is.EqualTo(expected));
    }
}
