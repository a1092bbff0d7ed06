namespace NbdKit.Tests;

public sealed class NbdExportInfoTests
{
    [Test]
    public void A_layer_that_says_only_its_size_can_be_read_and_nothing_else()
    {
        NbdExportInfo info = new NbdExportInfo { Size = 10 }.Gated(readOnly: false);
        Assert.That((info.CanWrite, info.CanFlush, info.CanTrim, info.IsRotational, info.CanMultiConn, info.CanExtents, info.IsBlocking),
            Is.EqualTo((false, false, false, false, false, false, false)));
        Assert.That((info.CanZero, info.CanFastZero, info.CanFua, info.CanCache),
            Is.EqualTo((Support.None, false, Support.None, Support.None)));
        Assert.That((info.Description, info.CanonicalName, info.BlockSize.IsKnown), Is.EqualTo((default(string), default(string), false)));
        Assert.That(info.MetaContexts, Is.EqualTo(new[] { "base:allocation" }));
    }

    [Test]
    public void Derived_defaults_follow_what_they_derive_from()
    {
        var info = new NbdExportInfo { Size = 10, CanWrite = true };
        Assert.That((info.CanZero, info.CanFastZero, info.CanFua), Is.EqualTo((Support.Emulate, true, Support.None)));
        Assert.That((info with { CanFlush = true }).CanFua, Is.EqualTo(Support.Emulate));
        Assert.That((info with { CanZero = Support.Native }).CanFastZero, Is.False);
        Assert.That((info with { CanZero = Support.Native, CanFastZero = true }).CanFastZero, Is.True);
        Assert.That((info with { CanFlush = true, CanFua = Support.None }).CanFua, Is.EqualTo(Support.None));
    }

    [Test]
    public void Values_that_make_no_sense_are_refused_where_they_are_set()
    {
        Assert.That(() => new NbdExportInfo { Size = -1 }, Throws.InstanceOf<ArgumentOutOfRangeException>());
        Assert.That(new NbdExportInfo { Size = long.MaxValue }.Size, Is.EqualTo(long.MaxValue));
        Assert.That(new NbdExportInfo { Size = 0 }.Size, Is.Zero);
        Assert.That(() => new NbdExportInfo { Size = 0, Description = "a\0" }, Throws.ArgumentException);
        Assert.That(() => new NbdExportInfo { Size = 0, Description = new string('x', 4097) }, Throws.ArgumentException);
        Assert.That(() => new NbdExportInfo { Size = 0, CanonicalName = new string('x', 4097) }, Throws.ArgumentException);
        Assert.That(new NbdExportInfo { Size = 0, CanonicalName = "" }.CanonicalName, Is.Empty);
    }
}
